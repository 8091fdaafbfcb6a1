// Pixels as Pillow computes them, so that a face has the same grey levels here as in Python.
//
// A picture is anything that drawImage takes, with width and height: an ImageBitmap. An image is
// {width, height, channels, data}, where data is a Uint8Array of interleaved levels, row by row.

const FILTERS = {
  bilinear: { support: 1, weight: x => Math.max(0, 1 - Math.abs(x)) },
  bicubic: { support: 2, weight: cubic },
};
const WHOLE = 2 ** 22; // Pillow's weights are whole numbers in 1 / WHOLE
const STRIP_PIXELS = 4e6; // of a picture, read at a time: a canvas of a whole photograph is too large for some browsers

const canvas = document.createElement("canvas");
const context = canvas.getContext("2d", { willReadFrequently: true });

function cubic(x) {
  const a = -0.5;
  x = Math.abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

/** Round to the nearest whole number, and a half to the even one, as Python does. */
export function roundHalfEven(x) {
  const rounded = Math.round(x);
  return rounded - x === 0.5 && rounded % 2 ? rounded - 1 : rounded;
}

/** Let the browser draw and react; after some milliseconds, go on. */
export const pause = (milliseconds = 0) => new Promise(done => setTimeout(done, milliseconds));

/** Read a part of a picture as RGBA; transparent parts are white. */
function read(picture, left, upper, width, height) {
  if (canvas.width < width) canvas.width = width;
  if (canvas.height < height) canvas.height = height;
  context.imageSmoothingEnabled = false;
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.drawImage(picture, left, upper, width, height, 0, 0, width, height);
  return context.getImageData(0, 0, width, height).data;
}

/** Scale a picture to an RGB image: Image.resize(BILINEAR, reducing_gap=2.0). */
export async function scale(picture, width, height) {
  const across = Math.max(1, Math.trunc(picture.width / width / 2));
  const down = Math.max(1, Math.trunc(picture.height / height / 2));
  const reduced = makeImage(Math.ceil(picture.width / across), Math.ceil(picture.height / down), 3);
  const rows = Math.max(1, Math.trunc(STRIP_PIXELS / picture.width / down)) * down;
  for (let top = 0; top < picture.height; top += rows) {
    if (top) await pause();
    const height = Math.min(rows, picture.height - top);
    const strip = { data: read(picture, 0, top, picture.width, height), width: picture.width, height };
    averageBlocks(strip, across, down, reduced, top / down);
  }
  canvas.width = canvas.height = 0; // gives the memory back
  return resize(reduced, width, height, "bilinear", picture.width / across, picture.height / down);
}

const makeImage = (width, height, channels) =>
  ({ width, height, channels, data: new Uint8Array(width * height * channels) });

/** Average blocks of an RGBA strip into the rows of an RGB image from firstRow on: Image.reduce. */
function averageBlocks(strip, across, down, result, firstRow) {
  const { data, width, height } = strip;
  let target = firstRow * result.width * 3;
  for (let top = 0; top < height; top += down) {
    const bottom = Math.min(top + down, height);
    for (let left = 0; left < width; left += across) {
      const right = Math.min(left + across, width);
      let red = 0, green = 0, blue = 0;
      for (let y = top; y < bottom; y++) {
        for (let at = (y * width + left) * 4, end = (y * width + right) * 4; at < end; at += 4) {
          red += data[at];
          green += data[at + 1];
          blue += data[at + 2];
        }
      }
      const count = (bottom - top) * (right - left), half = count >> 1;
      const factor = Math.floor(2 ** 24 / count) / 2 ** 24;
      for (const sum of [red, green, blue]) result.data[target++] = (sum + half) * factor;
    }
  }
}

/** Weights of the source's pixels for each of the result's: Pillow's precompute_coeffs. */
function filterWeights(size, extent, newSize, { support, weight }) {
  const step = extent / newSize, stretch = Math.max(step, 1), reach = support * stretch;
  return Array.from({ length: newSize }, (_, index) => {
    const centre = (index + 0.5) * step;
    const first = Math.max(0, Math.trunc(centre - reach + 0.5));
    const last = Math.min(size, Math.trunc(centre + reach + 0.5));
    const weights = [];
    for (let x = first; x < last; x++) weights.push(weight((x - centre + 0.5) / stretch));
    const total = weights.reduce((sum, value) => sum + value, 0);
    return { first, weights: weights.map(value => Math.trunc((value / total) * WHOLE + 0.5 * Math.sign(value))) };
  });
}

/**
 * Resize an image with antialiasing: Image.resize. The extent is the part of the image that is resized, from its upper
 * left corner; it may end within a pixel.
 */
export function resize(image, width, height, filter, extentAcross = image.width, extentDown = image.height) {
  const { channels } = image, wide = makeImage(width, image.height, channels), result = makeImage(width, height, channels);
  const columns = filterWeights(image.width, extentAcross, width, FILTERS[filter]);
  for (let y = 0; y < image.height; y++) {
    convolve(columns, image.data, y * image.width * channels, channels, channels, wide.data, y * width * channels, channels);
  }
  const rows = filterWeights(image.height, extentDown, height, FILTERS[filter]), line = width * channels;
  for (let x = 0; x < width; x++) convolve(rows, wide.data, x * channels, line, channels, result.data, x * channels, line);
  return result;
}

/** Filter one row or one column; pixels are sourceStep and targetStep levels apart. */
function convolve(filters, source, sourceStart, sourceStep, channels, target, targetStart, targetStep) {
  for (let channel = 0; channel < channels; channel++) {
    let to = targetStart + channel;
    for (const { first, weights } of filters) {
      let sum = WHOLE / 2, at = sourceStart + channel + first * sourceStep;
      for (let index = 0; index < weights.length; index++, at += sourceStep) sum += weights[index] * source[at];
      target[to] = Math.min(255, Math.max(0, Math.floor(sum / WHOLE)));
      to += targetStep;
    }
  }
}

/**
 * Cut out a square around a box and resize it as the images of training were (crop_face and to_square in Python); what
 * lies outside the picture repeats its border.
 */
export function cropSquare(picture, box, { margin, size, channels }) {
  const side = Math.max(1, roundHalfEven(Math.max(box.width, box.height) * (1 + 2 * margin)));
  const left = roundHalfEven(box.x + box.width / 2 - side / 2), upper = roundHalfEven(box.y + box.height / 2 - side / 2);
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const x0 = clamp(left, 0, picture.width - 1), x1 = clamp(left + side, 1, picture.width);
  const y0 = clamp(upper, 0, picture.height - 1), y1 = clamp(upper + side, 1, picture.height);
  const width = x1 - x0, rgba = read(picture, x0, y0, width, y1 - y0), cropped = makeImage(side, side, channels);
  let to = 0;
  for (let y = upper; y < upper + side; y++) {
    const row = (clamp(y, y0, y1 - 1) - y0) * width;
    for (let x = left; x < left + side; x++) {
      const at = (row + clamp(x, x0, x1 - 1) - x0) * 4;
      if (channels === 1) cropped.data[to++] = luma(rgba[at], rgba[at + 1], rgba[at + 2]);
      else for (let channel = 0; channel < 3; channel++) cropped.data[to++] = rgba[at + channel];
    }
  }
  return resize(cropped, size, size, "bicubic");
}

/** The grey level of a colour: ITU-R 601 luma in 1 / 65,536, as Pillow computes it. */
const luma = (red, green, blue) => (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16;

/** Sharpness (variance of the Laplacian) and brightness of a square: measure_quality in Python. */
export function measureQuality({ width, height, channels, data }) {
  const grey = channels === 1 ? data : Uint8Array.from({ length: width * height }, (_, at) => luma(...data.subarray(3 * at, 3 * at + 3)));
  let sum = 0, squares = 0, levels = 0;
  for (let y = 1; y < height - 1; y++) {
    for (let x = 1; x < width - 1; x++) {
      const at = y * width + x;
      const laplacian = grey[at - width] + grey[at + width] + grey[at - 1] + grey[at + 1] - 4 * grey[at];
      sum += laplacian;
      squares += laplacian ** 2;
    }
  }
  for (const level of grey) levels += level;
  const count = (width - 2) * (height - 2);
  return { sharpness: squares / count - (sum / count) ** 2, brightness: levels / grey.length };
}
