// Accuracy on PrivateTest and milliseconds per face of @vladmandic/human's network for expressions, without its detector.
//
//   python -m benchmarks.predictors package=package --save-faces faces.npz
//   python -c "import numpy as np; f = np.load('faces.npz'); [f[n].astype('u1').tofile(n) for n in ('images', 'labels', 'leaked')]"
//   npm install @vladmandic/human @tensorflow/tfjs @tensorflow/tfjs-backend-wasm
//   node other_packages.mjs
//
// Scaling, weights of the channels and labels are those of the package's src/gear/emotion.ts (3.3.6); one thread of
// WebAssembly. The labels are those of FER-2013 sorted by name: angry, disgust, fear, happy, neutral, sad, surprise.

import fs from 'node:fs';
import * as tf from '@tensorflow/tfjs';
import { setThreadsCount, setWasmPaths } from '@tensorflow/tfjs-backend-wasm';

const SIDE = 48, ROUNDS = 5, CALLS = 200, ORDER = [0, 1, 2, 3, 5, 6, 4];
const models = 'node_modules/@vladmandic/human/models/';

setWasmPaths('node_modules/@tensorflow/tfjs-backend-wasm/dist/');
setThreadsCount(1);
await tf.setBackend('wasm');
const { modelTopology, weightsManifest } = JSON.parse(fs.readFileSync(`${models}emotion.json`));
const weights = fs.readFileSync(`${models}emotion.bin`);
const weightData = weights.buffer.slice(weights.byteOffset, weights.byteOffset + weights.length);
const specs = { modelTopology, weightSpecs: weightsManifest.flatMap((group) => group.weights), weightData };
const model = await tf.loadGraphModel(tf.io.fromMemory(specs));
const size = model.inputs[0].shape[2];
const [images, labels, leaked] = ['images', 'labels', 'leaked'].map((name) => fs.readFileSync(name));

function predict(number) {
  return tf.tidy(() => {
    const pixels = images.subarray(number * SIDE * SIDE, (number + 1) * SIDE * SIDE);
    const grey = tf.tensor4d(Float32Array.from(pixels), [1, SIDE, SIDE, 1]).div(255);
    const colours = tf.concat([grey, grey, grey], 3);
    const channels = tf.image.resizeBilinear(colours, [size, size]).mul([0.2989, 0.587, 0.114]);
    const probs = model.execute(channels.sum(3, true).sub(0.5).mul(2)).dataSync();
    return ORDER[probs.indexOf(Math.max(...probs))];
  });
}

const right = Array.from(labels, (label, number) => predict(number) === label);
const times = [];
for (let round = 0; round < ROUNDS; round++) {
  const turn = [];
  for (let call = 0; call < CALLS; call++) {
    const begun = performance.now();
    predict(0);
    turn.push(performance.now() - begun);
  }
  times.push(Number(turn.sort((a, b) => a - b)[CALLS / 2].toPrecision(4)));
}
const unseen = right.filter((_, number) => !leaked[number]);
console.log(JSON.stringify({
  name: '@vladmandic/human',
  n: right.length,
  correct: right.filter(Boolean).length,
  leak_free_n: unseen.length,
  leak_free_correct: unseen.filter(Boolean).length,
  ms_in_batches_of_1: times,
}));
