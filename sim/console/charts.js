// The budget in plain sight: three canvases that are drawn anew from the rows they are given.

export const STAGES = ["way", "queue", "words", "preprocess", "prefix", "steps", "injected"];
export const MEANING = {
  way: "way and tick", queue: "queue", words: "words", preprocess: "frames", prefix: "prefix", steps: "steps",
  injected: "kept back",
};

export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

// A canvas as sharp as the screen; the context counts in CSS pixels.
function fresh(canvas) {
  const box = canvas.getBoundingClientRect(), sharp = window.devicePixelRatio || 1;
  const width = Math.round(box.width * sharp), height = Math.round(box.height * sharp);
  if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
  const g = canvas.getContext("2d");
  g.setTransform(sharp, 0, 0, sharp, 0, 0);
  g.clearRect(0, 0, box.width, box.height);
  g.font = `11px ${getComputedStyle(document.body).fontFamily}`;
  return [g, box.width, box.height];
}

function rule(g, width, y, name, text, above = true) {
  g.strokeStyle = colour(name);
  g.setLineDash([4, 3]);
  g.beginPath();
  g.moveTo(0, y);
  g.lineTo(width, y);
  g.stroke();
  g.setLineDash([]);
  g.fillStyle = colour(name);
  g.textAlign = "right";
  g.fillText(text, width - 2, above ? y - 4 : y + 12);
}

// A chunk row: [number, total ms, whether it was late, steps, {stage: ms}].
export function bar(canvas, row) {
  const [g, width, height] = fresh(canvas);
  let x = 0;
  for (const name of STAGES) {
    const wide = row ? ((row[4][name] || 0) / row[1]) * width : 0;
    g.fillStyle = colour(name);
    g.fillRect(x, 0, wide, height);
    x += wide;
  }
}

export function chunks(canvas, rows, deadline) {
  const [g, width, height] = fresh(canvas);
  const each = 6, fits = Math.max(1, Math.floor(width / each));
  const seen = rows.slice(-fits), top = Math.max(deadline * 1.15, ...seen.map((row) => row[1])) || 1;
  const y = (ms) => height - (ms / top) * height;
  seen.forEach((row, i) => {
    const x = width - (seen.length - i) * each;
    let at = 0;
    for (const name of STAGES) {
      const ms = row[4][name] || 0;
      if (!ms) continue;
      g.fillStyle = colour(name);
      const tall = Math.max(0.7, (ms / top) * height);
      g.fillRect(x, y(at) - tall, each - 1.5, tall);
      at += ms;
    }
    if (row[2]) {
      g.fillStyle = colour("bad");
      g.fillRect(x, 0, each - 1.5, 4);
    }
  });
  if (deadline) rule(g, width, y(deadline), "bad", `deadline ${Math.round(deadline)} ms`);
}

// A tick row: [number, late ms, work ms, held, skipped before, rad/s].
export function ticks(canvas, rows, limit) {
  const [g, width, height] = fresh(canvas);
  const fits = Math.min(rows.length, 600), seen = rows.slice(-fits), each = width / 600;
  const top = Math.max(limit * 1.6, ...seen.map((row) => row[1])) || 1;
  seen.forEach((row, i) => {
    const x = width - (seen.length - i) * each;
    if (row[4]) {
      g.fillStyle = colour("bad");
      g.globalAlpha = 0.35;
      g.fillRect(x, 0, Math.max(each, 1.5), height);
      g.globalAlpha = 1;
    }
    g.fillStyle = row[1] > limit ? colour("bad") : colour("prefix");
    const tall = Math.max(1, (row[1] / top) * height);
    g.fillRect(x, height - tall, Math.max(each, 1), tall);
  });
  rule(g, width, height - (limit / top) * height, "soft", `${limit.toFixed(1)} ms`);
}

export function speed(canvas, rows) {
  const [g, width, height] = fresh(canvas);
  const seen = rows.slice(-600), each = width / 600;
  const top = Math.max(1, ...seen.map((row) => row[5])) * 1.1;
  seen.forEach((row, i) => {  // where the arm had no row to play
    if (!row[3]) return;
    g.fillStyle = colour("hold");
    g.globalAlpha = 0.18;
    g.fillRect(width - (seen.length - i) * each, 0, each + 0.5, height);
    g.globalAlpha = 1;
  });
  g.strokeStyle = colour("accent");
  g.lineWidth = 1.3;
  g.beginPath();
  seen.forEach((row, i) => g.lineTo(width - (seen.length - i) * each, height - 1 - (row[5] / top) * (height - 2)));
  g.stroke();
}

export function quantile(values, q) {
  if (!values.length) return 0;
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))];
}
