"use strict";
// Clips side by side, in step: one clock, one slider, frame by frame; and in which columns they differ.

const MAX_COMPARED = 4;
const DRIFT_S = 0.04; // a frame at 25 per second: more is seen

async function showCompare(app, rows) {
  const dialog = byId("compare");
  const { table } = app;
  const records = await Promise.all(rows.map(async (row) => new Map(await table.row(row))));
  const stages = records.map((values) => stageOf(app, values));
  const videos = stages.map((stage, number) => ({ video: stage, fps: records[number].get("fps") || 16 })).filter(({ video }) => video.tagName === "VIDEO");
  for (const { video } of videos) Object.assign(video, { controls: false, loop: false, autoplay: false });
  const close = element("button", { className: "close icon", textContent: "×", "aria-label": "Close", title: "Close (Esc)", onclick: () => dialog.close() });
  const together = new Together(videos);
  dialog.together = together;
  dialog.onclose = () => together.end();
  dialog.replaceChildren(close,
    element("div", { className: "compared", style: { gridTemplateColumns: `repeat(${rows.length}, 1fr)` } }, ...stages.map((stage) => element("div", { className: "stage" }, stage))),
    videos.length ? together.controls : null,
    differencesOf(app, rows, records));
  if (!dialog.open) dialog.showModal();
  together.play();
}

/** Videos that play, stop and step as one. */
class Together {
  constructor(videos) {
    this.videos = videos;
    this.isPlaying = false;
    this.button = element("button", { className: "icon", textContent: "▶", "aria-label": "Play or pause", title: "Space", onclick: () => this.toggle() });
    this.slider = element("input", { type: "range", min: 0, max: 1, step: "any", value: 0, "aria-label": "Time" });
    this.slider.oninput = () => { this.pause(); this.seek(Number(this.slider.value) * this.duration); };
    this.frame = element("output", { className: "frame-number" });
    const step = (by, text, label) => element("button", { className: "icon", textContent: text, "aria-label": label, title: label, onclick: () => this.step(by) });
    this.speed = element("select", { "aria-label": "Speed" }, ...[1, 0.5, 0.25].map((speed) => element("option", { value: speed, textContent: `${speed}×` })));
    this.speed.onchange = () => { for (const { video } of videos) video.playbackRate = Number(this.speed.value); };
    this.controls = element("div", { className: "controls" }, step(-1, "◂", "One frame back (,)"), this.button, step(1, "▸", "One frame forward (.)"), this.slider, this.frame, this.speed);
    this.tick = () => { this.follow(); this.request = requestAnimationFrame(this.tick); };
    this.tick();
  }

  /** The longest one: its time is that of all. */
  get leader() {
    return this.videos.reduce((one, other) => ((other.video.duration || 0) > (one.video.duration || 0) ? other : one));
  }

  get duration() {
    return this.leader.video.duration || 0;
  }

  play() {
    if (!this.videos.length) return;
    if (this.leader.video.ended || this.leader.video.currentTime >= this.duration - 0.01) this.seek(0);
    this.isPlaying = true;
    this.button.textContent = "❚❚";
    for (const { video } of this.videos) video.play().catch(() => {});
  }

  pause() {
    this.isPlaying = false;
    this.button.textContent = "▶";
    for (const { video } of this.videos) video.pause();
  }

  toggle() {
    if (this.isPlaying) this.pause();
    else this.play();
  }

  seek(time) {
    for (const { video } of this.videos) video.currentTime = Math.min(time, Math.max(0, (video.duration || 0) - 0.001));
  }

  /** Show the frame after or before, counted in the frames of each. */
  step(by) {
    if (!this.videos.length) return;
    this.pause();
    for (const { video, fps } of this.videos) stepFrame(video, fps, by);
  }

  follow() {
    if (!this.videos.length) return;
    const { video: leader, fps } = this.leader;
    this.slider.value = this.duration ? leader.currentTime / this.duration : 0;
    this.frame.textContent = `frame ${Math.floor(leader.currentTime * fps + 0.01)}`;
    if (!this.isPlaying) return;
    if (leader.ended) { this.seek(0); this.play(); return; }
    for (const { video } of this.videos) {
      const isBehind = Math.abs(video.currentTime - leader.currentTime) > DRIFT_S && leader.currentTime < video.duration;
      if (isBehind && !video.seeking) video.currentTime = leader.currentTime;
    }
  }

  end() {
    cancelAnimationFrame(this.request);
    for (const { video } of this.videos) { video.pause(); video.removeAttribute("src"); video.load(); }
    this.videos = [];
  }
}

const NEVER_COMPARED = /sha256$|^(path|preview_path|arguments|row_indices|.*_at)$/;

function differencesOf(app, rows, records) {
  const names = [...records[0].keys()].filter((name) => !NEVER_COMPARED.test(name) && new Set(records.map((values) => values.get(name))).size > 1);
  const order = { argument: 0, carried: 1, record: 2 };
  names.sort((one, other) => order[app.table.column(one).role] - order[app.table.column(other).role]);
  const head = element("tr", {}, element("th", { textContent: "" }), ...rows.map((row, number) => element("td", {}, starsOf(app, records[number].get("row_id")))));
  const lines = names.map((name) => element("tr", {}, element("th", { scope: "row" }, element("bdi", { textContent: name })),
    ...records.map((values) => element("td", {}, element("bdi", { dir: "auto", textContent: shown(values.get(name)) })))));
  return element("table", { className: "differences" }, head, ...lines);
}
