// The page: photographs and the camera in, boxes and bars out.

import { loadRecogniser, smooth } from "./faces.js";
import { pause } from "./pixels.js";

const PERIOD = 125; // milliseconds between two pictures of the camera: 8 a second, where the machine can
const CAMERA_SIDE = 320; // pixels; a face in front of a camera is large
const SHOWN_SIDE = 1600; // pixels of a photograph on the screen
const SPOKEN_PERIOD = 2000; // milliseconds between two messages to a screen reader, while the camera runs

const page = Object.fromEntries([...document.querySelectorAll("[id]")].map(element => [element.id, element]));
let settings;
let current = 0; // number of the picture or camera that is shown: older ones stop
let stream = null;

const say = text => { if (page.status.textContent !== text) page.status.textContent = text; };
const percent = share => `${(100 * share).toFixed(0)} %`;

async function start() {
  settings = await (await fetch("settings.json")).json();
  document.title = `${settings.network.name}: facial expressions`;
  page.about.replaceChildren(...settings.about.map(text => Object.assign(document.createElement("li"), { textContent: text })));
  const recogniser = await loadRecogniser(settings);
  for (const control of [page.file, page.camera]) control.disabled = false;
  say("Ready.");
  return recogniser;
}

const ready = start();
ready.catch(error => say(`The network could not be loaded: ${error.message ?? error}`));

// ---- Photographs

async function showPhotograph(file) {
  stopCamera();
  const run = ++current;
  const { recognise } = await ready;
  say(`Looking for faces in ${file.name} ...`);
  let picture;
  try {
    picture = await createImageBitmap(file, { colorSpaceConversion: "none" }); // upright: EXIF is applied
  } catch {
    if (run === current) clear(`${file.name}: this browser cannot read it; save it as JPEG or PNG.`);
    return;
  }
  try {
    await pause(); // shows the message
    const result = await recognise(picture);
    if (run !== current) return;
    drawPhotograph(picture);
    show(result, picture);
    say(describe(result.faces));
  } catch (error) {
    if (run === current) clear(`${file.name}: ${error.message ?? error}`);
  } finally {
    picture.close();
  }
}

function drawPhotograph(picture) {
  const shrink = Math.min(1, SHOWN_SIDE / Math.max(picture.width, picture.height));
  page.canvas.width = Math.max(1, Math.round(picture.width * shrink));
  page.canvas.height = Math.max(1, Math.round(picture.height * shrink));
  const context = page.canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, page.canvas.width, page.canvas.height);
}

// ---- Camera

const CAMERA_ERRORS = {
  NotAllowedError: "The camera was not allowed. Allow it for this page in the browser's settings, and try again.",
  NotFoundError: "No camera was found.",
  NotReadableError: "The camera cannot be read; another program may be using it.",
};

async function startCamera() {
  stopCamera();
  const run = ++current;
  const { recognise } = await ready;
  if (!navigator.mediaDevices) return clear("The camera needs https, or localhost as the address of this page.");
  say("Waiting for the camera ...");
  try {
    const opened = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user", width: { ideal: 640 } } });
    if (run !== current) return release(opened); // something else was chosen meanwhile
    stream = opened;
    page.video.srcObject = stream;
    await page.video.play();
  } catch (error) {
    if (run !== current) return;
    stopCamera();
    return clear(CAMERA_ERRORS[error.name] ?? `The camera cannot be used: ${error.message}`);
  }
  stream.getVideoTracks()[0].addEventListener("ended", () => { if (run === current) { stopCamera(); clear("The camera was disconnected."); } });
  page.video.hidden = page.stop.hidden = false;
  page.camera.hidden = true;
  page.stop.focus();
  await watchCamera(run, recognise);
}

async function watchCamera(run, recognise) {
  let known = [], spoken = -Infinity;
  while (run === current) {
    const now = performance.now();
    try {
      const picture = await createImageBitmap(page.video);
      const result = await recognise(picture, CAMERA_SIDE);
      if (run !== current) return;
      known = result.faces = smooth(known, result.faces, now);
      page.canvas.width = picture.width;
      page.canvas.height = picture.height;
      show(result, picture, { mirrored: true });
      picture.close();
      if (now - spoken > SPOKEN_PERIOD) {
        say(describe(result.faces, { withNumbers: false }));
        spoken = now;
      }
    } catch (error) {
      if (run !== current) return;
      stopCamera();
      return clear(`The camera stopped: ${error.message ?? error}`);
    }
    await pause(Math.max(10, PERIOD - (performance.now() - now)));
  }
}

const release = opened => { for (const track of opened.getTracks()) track.stop(); };

function stopCamera() {
  current++;
  if (!stream) return;
  release(stream);
  stream = page.video.srcObject = null;
  page.video.hidden = page.stop.hidden = true;
  page.camera.hidden = false;
}

// ---- Results

function clear(message) {
  page.picture.hidden = true;
  page.faces.replaceChildren();
  page.times.textContent = "";
  say(message);
}

/** The answer for a face; one below the network's threshold is unsure. */
function answer({ probs, flags }) {
  const prob = Math.max(...probs), { classes, threshold } = settings.network;
  const unsure = threshold !== null && prob < threshold;
  return { name: classes[probs.indexOf(prob)], prob, flags: unsure ? [...flags, "unsure"] : flags, mark: unsure ? "?" : "" };
}

function describe(faces, { withNumbers = true } = {}) {
  if (!faces.length) return "No face was found.";
  const answers = faces.map(answer).map(({ name, mark, prob }) => `${name}${mark}${withNumbers ? ` ${percent(prob)}` : ""}`);
  return `${faces.length} ${faces.length === 1 ? "face" : "faces"}: ${answers.join(", ")}.`;
}

function show({ faces, detection, recognition }, picture, { mirrored = false } = {}) {
  page.picture.hidden = false;
  drawBoxes(faces, picture, mirrored);
  page.canvas.setAttribute("aria-label", `${mirrored ? "Camera" : "Photograph"}, with a box around each face. ${describe(faces)}`);
  while (page.faces.children.length > faces.length) page.faces.lastChild.remove();
  while (page.faces.children.length < faces.length) page.faces.append(makeCard());
  faces.forEach((face, index) => fillCard(page.faces.children[index], face, index));
  page.times.textContent = `${picture.width} x ${picture.height} pixels; faces found in ${detection.toFixed(0)} ms, `
    + `expressions in ${recognition.toFixed(0)} ms.${mirrored ? " Expressions are averaged over about a second." : ""}`;
}

function drawBoxes(faces, picture, mirrored) {
  const context = page.canvas.getContext("2d"), { width } = page.canvas;
  const shrink = width / picture.width, shownWidth = page.stage.clientWidth || width;
  const unit = width / Math.min(width, shownWidth); // canvas pixels for one of the screen
  context.font = `600 ${15 * unit}px system-ui, sans-serif`;
  faces.forEach((face, index) => {
    const { name, mark } = answer(face), text = `${index + 1} ${name}${mark}`;
    const box = { w: face.box.width * shrink, h: face.box.height * shrink, y: face.box.y * shrink };
    box.x = mirrored ? width - face.box.x * shrink - box.w : face.box.x * shrink;
    for (const [color, line] of [["#fff", 5], ["#0072b2", 3]]) {
      Object.assign(context, { strokeStyle: color, lineWidth: line * unit });
      context.strokeRect(box.x, box.y, box.w, box.h);
    }
    const label = { w: context.measureText(text).width + 12 * unit, h: 24 * unit };
    const x = Math.min(Math.max(0, box.x - 2 * unit), width - label.w), y = Math.max(0, box.y - label.h);
    context.fillStyle = "#0072b2";
    context.fillRect(x, y, label.w, label.h);
    Object.assign(context, { fillStyle: "#fff", textBaseline: "middle" });
    context.fillText(text, x + 6 * unit, y + label.h / 2);
  });
}

function makeCard() {
  const card = page.card.content.firstElementChild.cloneNode(true);
  card.querySelector("ul").replaceChildren(...settings.network.classes.map(name => {
    const row = page.bar.content.firstElementChild.cloneNode(true);
    row.querySelector(".name").textContent = name;
    return row;
  }));
  return card;
}

function fillCard(card, face, index) {
  const { name, mark, prob, flags } = answer(face);
  card.dataset.box = Object.values(face.box).join(" ");
  card.querySelector("h2").textContent = `${index + 1}: ${name}${mark} ${percent(prob)}`;
  card.querySelector(".flags").textContent = flags.join(", ");
  [...card.querySelectorAll("li")].forEach((row, place) => {
    row.dataset.prob = face.probs[place];
    row.classList.toggle("best", face.probs[place] === prob);
    row.querySelector(".fill").style.width = `${100 * face.probs[place]}%`;
    row.querySelector(".percent").textContent = percent(face.probs[place]);
  });
}

// ---- Controls

page.file.addEventListener("change", () => {
  if (page.file.files.length) showPhotograph(page.file.files[0]);
  page.file.value = ""; // so that the same file can be chosen again
});
page.camera.addEventListener("click", startCamera);
page.stop.addEventListener("click", () => {
  stopCamera();
  clear("The camera is off.");
  page.camera.focus();
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, event => {
    event.preventDefault(); // the browser would open the file in place of the page
    page.drop.classList.toggle("over", kind === "dragover");
    const [file] = kind === "drop" ? event.dataTransfer.files : [];
    if (file) showPhotograph(file);
  });
}
