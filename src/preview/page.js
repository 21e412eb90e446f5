"use strict";

const $ = (id) => document.getElementById(id);
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

// The token follows the #, so that it appears in no log and no request line.
const token = new URLSearchParams(location.hash.slice(1)).get("token");
const headers = token ? { Authorization: `Bearer ${token}` } : {};

async function ask(path) {
  const answer = await fetch(path, { headers, cache: "no-store" });
  if (answer.status >= 400) throw new Error(await answer.text());
  return answer;
}

function say(text) {
  $("message").textContent = text;
}

// The frame: the input on the left of the divider, the result on the right.

const canvas = $("frame");
const paper = canvas.getContext("2d");
let pair = null;
let place = 0.5;

function draw() {
  if (!pair) return;
  const { width, height } = canvas;
  const edge = Math.round(place * width);
  paper.drawImage(pair.after, 0, 0, width, height);
  paper.save();
  paper.beginPath();
  paper.rect(0, 0, edge, height);
  paper.clip();
  paper.drawImage(pair.before, 0, 0, width, height);
  paper.restore();
}

function divide(at) {
  place = Math.min(1, Math.max(0, at));
  $("divider").style.left = `${100 * place}%`;
  $("divider").setAttribute("aria-valuenow", Math.round(100 * place));
  draw();
}

$("view").addEventListener("pointerdown", (event) => {
  $("view").setPointerCapture(event.pointerId);
  follow(event);
});
$("view").addEventListener("pointermove", (event) => {
  if (event.buttons) follow(event);
});
function follow(event) {
  const box = $("view").getBoundingClientRect();
  divide((event.clientX - box.left) / box.width);
}
$("divider").addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -0.02, ArrowRight: 0.02, Home: -1, End: 1 }[event.key];
  if (step) divide(place + step);
});

async function frames() {
  let seen = "";
  for (;;) {
    if (document.hidden) {
      await pause(300);
      continue;
    }
    try {
      const answer = await ask(`pair?seen=${seen}`);
      if (answer.status === 200) {
        const bytes = await answer.arrayBuffer();
        const length = new DataView(bytes).getUint32(0);
        const parts = [bytes.slice(4, 4 + length), bytes.slice(4 + length)];
        const [before, after] = await Promise.all(
          parts.map((part) => createImageBitmap(new Blob([part], { type: "image/jpeg" }))),
        );
        seen = answer.headers.get("X-Frame");
        pair = { before, after };
        if (canvas.width !== after.width || canvas.height !== after.height) {
          canvas.width = after.width;
          canvas.height = after.height;
        }
        draw();
        say("");
      } else {
        say("waiting for a frame");
      }
    } catch (error) {
      say(error instanceof TypeError ? "the run has ended, or cannot be reached" : error.message);
      await pause(1000);
    }
    // Frames are encoded only for clients; about 10 fps suffice.
    await pause(80);
  }
}

// The metrics.

let lastStatus = null;

function showStatus(status) {
  lastStatus = status;
  document.body.classList.toggle("enlarges", !status.denoises);
  $("rate").textContent = `${status.rate.toFixed(1)} fps`;
  $("latency").textContent =
    [status.latency_p50_ms, status.latency_p95_ms, status.latency_p99_ms].map((ms) => ms.toFixed(0)).join(" / ") + " ms";
  $("latency").title = "half of the frames, 95 % and 99 % of them were written within that time";
  $("noise").textContent = status.sigma === null ? "–" : `sigma ${status.sigma.toFixed(1)}`;
  const parts = [status.model, `${status.steps} step${status.steps === 1 ? "" : "s"}`];
  if (status.precision !== "f32") parts.push(status.precision);
  if (status.scale !== "1") parts.push(`at ${status.scale} of the size`);
  $("network").textContent = parts.join(", ");
  $("written").textContent = `${status.written} of ${status.read}`;
  const lost = ["dropped", "corrupt", "late", "passed_through"].filter((name) => status[name] > 0);
  $("lost").textContent = lost.map((name) => `${status[name]} ${name.replace("_", " ")}`).join(", ") || "nothing";
}

async function updateMetrics() {
  for (let first = true; ; await pause(500)) {
    try {
      const status = await (await ask("status")).json();
      showStatus(status);
      if (first) show(status);
      if ($("auto").checked) followSigma(status);
      first = false;
    } catch {
      // The request for frames reports the error.
    }
  }
}

// The controls.

function followSigma(status) {
  if (status.sigma !== null) $("sigma").value = Math.round(status.sigma);
  $("sigma-value").value = $("sigma").value;
}

function show(status) {
  $("temporal").checked = status.temporal;
  const steps = String(status.steps);
  if (![...$("steps").options].some((option) => option.value === steps)) $("steps").add(new Option(steps));
  $("steps").value = steps;
}

async function control(request) {
  const answer = await fetch("control", {
    method: "POST",
    headers: { ...headers, "Content-Type": "application/json" },
    body: JSON.stringify(request),
  });
  if (!answer.ok) say(await answer.text());
}

function requestSigma() {
  const auto = $("auto").checked;
  $("sigma").disabled = auto;
  $("sigma-value").value = $("sigma").value;
  control({ sigma: auto ? "auto" : Number($("sigma").value) });
}
$("auto").addEventListener("change", requestSigma);
$("sigma").addEventListener("input", requestSigma);
$("steps").addEventListener("change", () => control({ steps: Number($("steps").value) }));
$("temporal").addEventListener("change", () => control({ temporal: $("temporal").checked }));
$("controls").addEventListener("submit", (event) => event.preventDefault());

divide(0.5);
frames();
updateMetrics();
