// Faces and their expressions in a picture: YuNet as OpenCV's FaceDetectorYN runs it, then the network.

import * as ort from "./ort.wasm.min.mjs";
import { cropSquare, measureQuality, roundHalfEven, scale } from "./pixels.js";

const STRIDES = [8, 16, 32]; // of YuNet's three grids of cells, in pixels
const SMOOTHING = 500; // milliseconds; a picture of a camera this old has 1/e of the weight of the newest
const SAME_FACE = 0.3; // overlap of the boxes of a face in two pictures

ort.env.wasm.wasmPaths = new URL("./", import.meta.url).href;
ort.env.wasm.numThreads = 1; // more need headers of the server, see README.md

/** Load both networks; the settings come from settings.json, and hold every number that Python uses, too. */
export async function loadRecogniser(settings) {
  const [detector, network] = [await load("yunet.onnx"), await load("network.onnx")];
  const warm = new ort.Tensor("uint8", new Uint8Array(settings.network.size ** 2), [1, 1, settings.network.size, settings.network.size]);
  await network.run({ images: warm }); // the first run is slower
  return {
    /**
     * Find the faces of a picture, from left to right, and predict their expressions.
     * Returns {faces: [{box, score, probs, flags}], detection, recognition}, the last two in milliseconds.
     */
    async recognise(picture, longestSide = settings.detector.longest_side) {
      const started = performance.now();
      const found = await findFaces(detector, picture, settings.detector, longestSide);
      const between = performance.now();
      const faces = await predict(network, picture, found, settings);
      return { faces, detection: between - started, recognition: performance.now() - between };
    },
  };
}

const load = name => ort.InferenceSession.create(new URL(name, import.meta.url).href, { executionProviders: ["wasm"] });

/** Find the faces; if there are none, look again in a smaller picture, for faces that fill it. */
async function findFaces(detector, picture, rules, longestSide) {
  const largest = Math.max(picture.width, picture.height);
  let found = await detect(detector, picture, rules, longestSide);
  for (const side of rules.smaller_sides) {
    if (!found.length && side < largest && side < longestSide) found = await detect(detector, picture, rules, side);
  }
  return found.sort((one, other) => one.box.x - other.box.x || one.box.y - other.box.y);
}

async function detect(detector, picture, rules, longestSide) {
  const shrink = Math.min(1, longestSide / Math.max(picture.width, picture.height));
  const width = Math.max(1, roundHalfEven(picture.width * shrink));
  const height = Math.max(1, roundHalfEven(picture.height * shrink));
  const image = await scale(picture, width, height);
  // Black on the right and below, up to multiples of 32.
  const padded = side => Math.ceil(Math.max(side, rules.min_side) / 32) * 32;
  const paddedWidth = padded(width), paddedHeight = padded(height), plane = paddedWidth * paddedHeight;
  const pixels = new Float32Array(3 * plane); // blue, green, red; 0..255
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (const channel of [2, 1, 0]) pixels[channel * plane + y * paddedWidth + x] = image.data[at++];
    }
  }
  const heads = await detector.run({ input: new ort.Tensor("float32", pixels, [1, 3, paddedHeight, paddedWidth]) });
  const across = picture.width / width, down = picture.height / height;
  return suppress(decode(heads, paddedWidth, rules.score), rules.nms)
    .map(({ x, y, width, height, score }) => (
      { box: { x: x * across, y: y * down, width: width * across, height: height * down }, score }))
    .filter(({ box }) => isInPicture(box, picture));
}

/** Turn the outputs of YuNet into boxes with scores. */
function decode(heads, paddedWidth, threshold) {
  const found = [], unit = value => Math.min(1, Math.max(0, value));
  for (const stride of STRIDES) {
    const [classes, objects, boxes] = ["cls", "obj", "bbox"].map(name => heads[`${name}_${stride}`].data);
    const columns = paddedWidth / stride;
    for (let cell = 0; cell < classes.length; cell++) {
      const score = Math.sqrt(unit(classes[cell]) * unit(objects[cell]));
      if (score < threshold) continue;
      const [dx, dy, logWidth, logHeight] = boxes.subarray(4 * cell, 4 * cell + 4);
      const width = Math.exp(logWidth) * stride, height = Math.exp(logHeight) * stride;
      const x = ((cell % columns) + dx) * stride - width / 2, y = (Math.floor(cell / columns) + dy) * stride - height / 2;
      found.push({ x, y, width, height, score });
    }
  }
  return found;
}

/** Keep the box with the highest score of those that overlap by more than a limit (non-maximum suppression). */
function suppress(boxes, limit) {
  const kept = [];
  for (const box of boxes.sort((one, other) => other.score - one.score)) {
    if (kept.every(other => overlap(wholePixels(box), wholePixels(other)) <= limit)) kept.push(box);
  }
  return kept;
}

/** OpenCV compares boxes of whole pixels. */
const wholePixels = ({ x, y, width, height }) =>
  ({ x: Math.trunc(x), y: Math.trunc(y), width: Math.trunc(width), height: Math.trunc(height) });

/** Area that two boxes share, as a share of the area that they cover together. */
function overlap(one, other) {
  const across = Math.min(one.x + one.width, other.x + other.width) - Math.max(one.x, other.x);
  const down = Math.min(one.y + one.height, other.y + other.height) - Math.max(one.y, other.y);
  if (across <= 0 || down <= 0) return 0;
  return (across * down) / (one.width * one.height + other.width * other.height - across * down);
}

function isInPicture({ x, y, width, height }, picture) {
  const longest = Math.max(width, height);
  return -width < x && x < picture.width && -height < y && y < picture.height
    && longest > 0 && longest <= 2 * Math.max(picture.width, picture.height);
}

async function predict(network, picture, found, settings) {
  if (!found.length) return [];
  const { size, channels, classes } = settings.network;
  const squares = found.map(({ box }) => cropSquare(picture, box, { margin: settings.margin, size, channels }));
  const pixels = new Uint8Array(found.length * channels * size ** 2), plane = size ** 2;
  squares.forEach(({ data }, index) => {
    const start = index * channels * plane;
    for (let at = 0; at < data.length; at++) pixels[start + (at % channels) * plane + Math.trunc(at / channels)] = data[at];
  });
  const images = new ort.Tensor("uint8", pixels, [found.length, channels, size, size]);
  const { probs } = await network.run({ images });
  return found.map(({ box, score }, index) => {
    const own = Array.from(probs.data.subarray(index * classes.length, (index + 1) * classes.length));
    return { box, score, probs: own, flags: describeFlags(squares[index], box, settings.flags) };
  });
}

/** What makes a prediction doubtful: flag_face in Python. */
function describeFlags(square, box, limits) {
  const flags = Math.max(box.width, box.height) < limits.min_side ? ["small"] : [];
  if (square.data.every(level => level === square.data[0])) return [...flags, "blank"];
  const { sharpness, brightness } = measureQuality(square);
  if (sharpness < limits.min_sharpness) flags.push("blurred");
  if (brightness < limits.min_brightness) flags.push("dark");
  return flags;
}

/**
 * Average the probabilities of each face over the pictures of a camera, with weights that decay exponentially.
 * known is what this returned for the picture before, now is in milliseconds.
 */
export function smooth(known, faces, now) {
  const left = [...known];
  return faces.map(face => {
    const overlaps = left.map(other => overlap(face.box, other.box));
    const best = overlaps.indexOf(Math.max(...overlaps));
    if (!(overlaps[best] > SAME_FACE)) return { ...face, seen: now };
    const [before] = left.splice(best, 1), weight = 1 - Math.exp((before.seen - now) / SMOOTHING);
    const probs = face.probs.map((prob, index) => before.probs[index] + weight * (prob - before.probs[index]));
    return { ...face, probs, seen: now };
  });
}
