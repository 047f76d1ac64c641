// The page: one WebSocket, what it says put where it belongs, what people do sent back. The past (what was
// said, answers, ticks) lies with the server, so a page that is loaded again has lost nothing.

import * as charts from "./charts.js";
import { pushToTalk } from "./talk.js";

const $ = (id) => document.getElementById(id);
const KEPT = { chunks: 240, ticks: 900, said: 200, changes: 60 };
const rows = { chunks: [], ticks: [], said: [], changes: [] };
let socket = null, newest = {}, scene = 0, history = [], at = 0, draft = "", dragging = 0;

// ---- the connection

function connect() {
  socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`);
  socket.binaryType = "arraybuffer";
  let first = true;
  socket.onmessage = ({ data }) => {
    if (typeof data !== "string") return look(new Uint8Array(data));
    const said = JSON.parse(data);
    if (first) for (const name in rows) rows[name] = [];
    if (first) $("said").replaceChildren();
    first = false;
    take(said);
  };
  socket.onclose = () => {
    mic.release();  // the next connection has no part of it
    trouble("no connection to the console: nothing on this page reaches the arm");
    status("no connection", []);
    setTimeout(connect, 700);
  };
}

function raw(data) {
  if (socket && socket.readyState === WebSocket.OPEN) socket.send(data);
}
const send = (wish) => raw(JSON.stringify(wish));

let passing = 0;
function trouble(text, forMs = 0) {
  $("trouble").textContent = text;
  $("trouble").hidden = !text;
  passing = forMs ? Date.now() + forMs : 0;
}

// ---- what comes

function take(said) {
  newest = said;
  if (said.error) trouble(said.error, 3000);
  else if (said.silent > 1.5) trouble(`the control process has said nothing for ${said.silent.toFixed(0)} s`);
  else if (!passing || Date.now() > passing) trouble("");
  for (const name in rows) rows[name] = rows[name].concat(said[name] || []).slice(-KEPT[name]);
  $("mic").hidden = !said.ears || !navigator.mediaDevices;  // browsers give microphones to safe places alone
  if (said.state === undefined) return;
  $("about").textContent = `${said.about.robot} · ${said.about.policy} · ${said.about.rate} Hz`
    + (said.viewers > 1 ? ` · ${said.viewers} pages look` : "");
  status(said.silent > 1.5 ? "silent" : said.state, said.reasons);
  (said.said || []).forEach(speak);
  plan(said.plan);
  knobs(said);
  if ((said.changes || []).length) changes();
  if (said.in_3d !== scene) show(said.in_3d);
}

function status(state, reasons) {
  $("status").dataset.state = state;
  if ($("state").textContent !== state) $("state").textContent = state;
  const why = reasons.join(", ");
  if ($("reasons").textContent !== why) $("reasons").textContent = why;
}

function paragraph(text, kind) {
  const p = document.createElement("p");
  p.textContent = text;
  p.className = kind;
  $("said").append(p);
}

// A row of what was said: [number, s, what a person said or "", the answer, its tone].
function speak([, , text, answer, tone]) {
  const log = $("said"), low = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  if (text) {
    paragraph(text, "you");
    if (history.at(-1) !== text) history.push(text);
    at = history.length;
  }
  if (answer) paragraph(answer, `takt ${tone}`);
  while (log.childElementCount > 2 * KEPT.said) log.firstChild.remove();
  if (low) log.scrollTop = log.scrollHeight;
}

let planned = "";
function plan(steps) {
  const now = JSON.stringify(steps);
  if (now === planned) return;
  planned = now;
  $("plan").replaceChildren(...steps.map(([text, state]) => {
    const item = document.createElement("li"), how = document.createElement("span");
    item.className = state;
    how.textContent = state;
    item.append(text, how);
    return item;
  }));
  $("plan").querySelector(".running")?.scrollIntoView({ block: "nearest" });
}

function choices(box, names, chosen, set) {
  if (box.dataset.names !== names.join()) {
    box.dataset.names = names.join();
    box.replaceChildren(...names.map((name) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = name;
      button.onclick = () => send({ do: "set", name: set, value: name });
      return button;
    }));
  }
  for (const button of box.children) button.setAttribute("aria-pressed", button.textContent === chosen);
}

function knobs({ knobs, table, recording }) {
  if (Date.now() > dragging) $("delay").value = knobs.delay_ms;
  $("delay-said").textContent = `${Math.round(knobs.delay_ms)} ms`;
  choices($("join"), knobs.joins, knobs.join, "join");
  choices($("policy"), knobs.policies, knobs.policy, "policy");
  $("policies").hidden = knobs.policies.length < 2;
  $("tables").hidden = !table;
  if (table) {
    $("seed").textContent = table.seed;
    choices($("try"), table.try, "", "");
    for (const button of $("try").children) button.onclick = () => say(button.textContent);
  }
  $("recorder").hidden = !recording;
  if (recording) {
    $("record").setAttribute("aria-pressed", recording.on);
    $("recorded").textContent = recording.said;
  }
}

function changes() {
  $("changes").replaceChildren(...rows.changes.slice(-30).reverse().map(([, time, , to, why]) => {
    const item = document.createElement("li"), name = document.createElement("b");
    name.textContent = to;
    item.append(`${time.toFixed(1)} s `, name, why.length ? ` ${why.join(", ")}` : "");
    return item;
  }));
}

const urls = {};
function look(data) {
  const name = new TextDecoder().decode(data.subarray(1, 1 + data[0]));
  let figure = document.querySelector(`#cameras [data-camera="${CSS.escape(name)}"]`);
  if (!figure) {
    figure = document.createElement("figure");
    figure.dataset.camera = name;
    figure.append(new Image(), document.createElement("figcaption"));
    figure.children[0].alt = `camera ${name}`;
    figure.children[0].onload = ({ target }) => { figure.style.aspectRatio = target.naturalWidth / target.naturalHeight; };
    figure.children[1].textContent = name;
    $("cameras").append(figure);
  }
  const url = URL.createObjectURL(new Blob([data.subarray(1 + data[0])], { type: "image/jpeg" }));
  figure.children[0].src = url;
  if (urls[name]) URL.revokeObjectURL(urls[name]);
  urls[name] = url;
  figure.dataset.count = Number(figure.dataset.count || 0) + 1;
}

// viser's client, in a frame of the same origin; its panels have nothing to say here, and its keys are ours.
const PANELS = "[data-floating-window], [class*=mantine-Notifications-root], [class*=mantine-Paper-root]";
function show(number) {
  scene = number;
  const wanted = number > 0 && $("in-3d").checked;
  $("scene").hidden = !number;
  $("frame").hidden = !wanted;
  if (!wanted) $("frame").removeAttribute("src");
  else if (!$("frame").hasAttribute("src")) {
    const dark = matchMedia("(prefers-color-scheme: dark)").matches ? "&darkMode" : "";
    $("frame").src = `3d/?hideViserLogo${dark}`;
  }
}
$("frame").onload = () => {
  const inside = $("frame").contentDocument, style = inside.createElement("style");
  style.textContent = `${PANELS} { display: none !important; }`;
  inside.head.append(style);
  inside.addEventListener("keydown", key, true);
  inside.addEventListener("keyup", up, true);
  inside.defaultView.addEventListener("blur", mic.release);
};
$("in-3d").checked = localStorage.getItem("in-3d") !== "no" && location.hash !== "#flat";
$("in-3d").onchange = () => {  // a scene costs a phone its battery
  localStorage.setItem("in-3d", $("in-3d").checked ? "yes" : "no");
  show(scene);
};

// ---- the budget, drawn as often as the screen likes and no more

let drawn = 0;
function draw(time) {
  requestAnimationFrame(draw);
  if (time - drawn < 90 || newest.state === undefined) return;
  drawn = time;
  const { about, counts } = newest, last = rows.chunks.at(-1), recent = rows.ticks.slice(-300);
  charts.bar($("chunk"), last);
  charts.chunks($("chunks"), rows.chunks, about.chunk_ms);
  charts.ticks($("ticks"), rows.ticks, about.late_ms);
  charts.speed($("speed"), rows.ticks);
  legend(last);
  const totals = rows.chunks.slice(-60).map((row) => row[1]), late = recent.map((row) => row[1]);
  const ms = (values, q) => charts.quantile(values, q).toFixed(q < 1 && charts.quantile(values, q) < 10 ? 1 : 0);
  $("chunk-said").textContent = last ? `${last[1].toFixed(0)} ms from the picture to its answer, ${last[3]} steps` : "";
  $("chunks-said").textContent = totals.length ? `p50 ${ms(totals, 0.5)} · p95 ${ms(totals, 0.95)} ms` : "";
  $("ticks-said").textContent = `late p50 ${ms(late, 0.5)} · p99 ${ms(late, 0.99)} ms; computing `
    + `${ms(recent.map((row) => row[2]), 0.5)} of ${about.period_ms.toFixed(0)} ms`;
  $("speed-said").textContent = "the fastest joint, as told; shaded: no row to play";
  tell(counts);
}

function legend(last) {
  const list = $("legend");
  if (!list.childElementCount) {
    list.append(...charts.STAGES.map((name) => {
      const item = document.createElement("li"), key = document.createElement("i");
      key.style.background = `var(--${name})`;
      item.append(key, charts.MEANING[name], " ", document.createElement("b"));
      return item;
    }));
  }
  charts.STAGES.forEach((name, i) => {
    const ms = last ? last[4][name] || 0 : 0;
    list.children[i].hidden = !ms;
    list.children[i].lastChild.textContent = ms < 9.95 ? ms.toFixed(1) : ms.toFixed(0);
  });
}

const COUNTS = { asked: "asked", answered: "answered", late: "late", exceeded: "later than assumed", refused: "refused",
  failed: "failed", held: "ticks held", skipped: "ticks skipped" };
const WRONG = ["late", "refused", "failed", "skipped"];
function tell(counts) {
  const list = $("counts");
  for (const name in COUNTS) {
    let item = list.querySelector(`[data-count="${name}"]`);
    if (!item) {
      item = document.createElement("div");
      item.dataset.count = name;
      item.append(document.createElement("dt"), document.createElement("dd"));
      item.children[0].textContent = COUNTS[name];
      list.append(item);
    }
    item.children[1].textContent = counts[name];
    item.className = counts[name] && WRONG.includes(name) ? "bad" : "";
  }
}

// ---- what people do

function say(text) {
  if (!text.trim()) return;
  send({ do: "say", text: text.trim() });
  $("text").value = draft = "";
  at = history.length;
}

const stop = () => send({ do: "stop" });
$("stop").addEventListener("pointerdown", stop);  // not only when the button is let go
$("stop").addEventListener("click", (event) => { if (event.detail === 0) stop(); });  // by the keyboard
$("form").addEventListener("submit", (event) => { event.preventDefault(); say($("text").value); });
$("text").addEventListener("keydown", (event) => {
  const by = { ArrowUp: -1, ArrowDown: 1 }[event.key];
  if (!by) return;
  event.preventDefault();
  if (at === history.length) draft = $("text").value;
  at = Math.min(history.length, Math.max(0, at + by));
  $("text").value = at === history.length ? draft : history[at];
});
const mic = pushToTalk($("mic"), send, raw, trouble);
function key(event) {
  if (event.repeat || event.target.closest?.("input[type=text], textarea")) return;
  if (event.code === "KeyT" && !event.ctrlKey && !event.metaKey && !event.altKey) mic.press();
  if (event.code !== "Space") return;
  event.preventDefault();
  event.stopPropagation();
  stop();
}
addEventListener("keydown", key, true);
function up(event) {  // a focused button would be pressed by the same key
  if (event.code === "Space" && !event.target.closest?.("input[type=text]")) event.preventDefault();
  if (event.code === "KeyT") mic.release();
}
addEventListener("keyup", up, true);
$("delay").addEventListener("input", () => {
  dragging = Date.now() + 600;
  $("delay-said").textContent = `${$("delay").value} ms`;
  later({ do: "set", name: "delay_ms", value: Number($("delay").value) });
});
let waiting = null, timer = 0;
function later(wish) {  // a slider says much; the last of it counts
  waiting = wish;
  timer ||= setTimeout(() => { send(waiting); timer = 0; }, 120);
}
$("again").onclick = () => send({ do: "table", seed: newest.table.seed });
$("new").onclick = () => send({ do: "table", seed: null });
$("record").onclick = () => send({ do: "record", on: $("record").getAttribute("aria-pressed") !== "true" });
if (location.search) window.history.replaceState(null, "", location.pathname);  // the token lies in a cookie now
connect();
requestAnimationFrame(draw);
