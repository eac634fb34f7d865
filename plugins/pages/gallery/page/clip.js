"use strict";
// Clips as elements: a tile of the wall, and what plays the ones that are in view.

const PLAYED = { mp4: "video", webm: "video", png: "image", webp: "image", gif: "image", flac: "audio", wav: "audio" };
const MAX_PLAYING = 40; // browsers refuse more players (Chrome on phones: 40), and eyes do not follow them
const AT_ONCE_MS = 6; // of a frame's 16 go to beginning and ending players, milliseconds each
const STEP_MS = 50; // between looks at whether clips of a grid are in sync
const MAX_DRIFT_S = 0.08; // two frames at 25 per second; each correction costs a seek
const TILE_COLUMNS = ["row_id", "path", "preview_path", "prompt", "num_frames", "fps"];

const SHORT_NAMES = { guidance_scale: "guidance", num_inference_steps: "steps" }; // in captions, which have no room

/** Return how a browser shows a clip: video, image, audio; file: not at all. */
function kindOf(path) {
  return PLAYED[path?.slice(path.indexOf(".") + 1)] ?? "file";
}

function urlOf(path) {
  return `../${path.split("/").map(encodeURIComponent).join("/")}`;
}

/** Return a row in a few words: what differs most between rows. */
function factsOf(app, row, names = {}) {
  return app.factNames.map((name) => `${names[name] ?? name} ${shown(app.table.at(row, name))}`).join(" · ");
}

/** Return a tile that fills itself as soon as its row is loaded. */
function clipTile(app, row, { isBare = false, numMore = 0 } = {}) {
  const frame = element("div", { className: "frame" });
  const star = element("button", { className: "star", tabIndex: -1, title: "Star (s)", textContent: "★" });
  const mark = element("button", { className: "mark", tabIndex: -1, title: "Select to compare (c): two to four clips, then press v", textContent: "⇄" });
  const tile = element("div", { className: "tile", role: "option", id: `tile-${row}` }, frame, mark, star);
  star.onclick = (event) => { event.stopPropagation(); app.star(row); };
  mark.onclick = (event) => { event.stopPropagation(); app.mark(row); };
  tile.onclick = () => app.open(row);
  if (numMore) frame.append(element("span", { className: "badge more", textContent: `+${count(numMore)}`, title: "More clips in this cell" }));
  tile.update = () => updateTile(app, row, tile, star, mark);
  fillTile(app, row, tile, frame, isBare);
  return tile;
}

async function fillTile(app, row, tile, frame, isBare) {
  await app.table.need(row, [...TILE_COLUMNS, ...app.factNames]);
  const { table } = app;
  const [path, preview] = [table.at(row, "path"), table.at(row, "preview_path")];
  tile.clip = { path, preview, kind: kindOf(path) };
  const still = preview ?? (tile.clip.kind === "image" ? path : null);
  if (still) frame.prepend(element("img", { src: urlOf(still), alt: "", decoding: "async", draggable: false, onerror: (event) => event.target.remove() }));
  if (tile.clip.kind === "audio") frame.prepend(element("span", { className: "sound", textContent: "♪", title: "Sound: press Space to play" }));
  if (tile.clip.kind === "file") frame.append(element("span", { className: "badge", textContent: path ? path.slice(path.indexOf(".") + 1) : "no clip" }));
  const [prompt, facts] = [table.at(row, "prompt") ?? table.at(row, "row_id"), factsOf(app, row)];
  tile.setAttribute("aria-label", `${prompt}, ${facts}`);
  if (isBare) tile.title = `${prompt}\n${facts}`;
  else {
    tile.append(element("div", { className: "caption" },
      element("bdi", { className: "prompt", dir: "auto", title: String(prompt).slice(0, 500), textContent: prompt }),
      element("span", { className: "facts", dir: "auto", title: facts, textContent: factsOf(app, row, SHORT_NAMES) })));
  }
  tile.update();
  app.player.watch(tile);
}

function updateTile(app, row, tile, star, mark) {
  if (!tile.clip) return;
  const { stars } = app.picks.get(app.table.at(row, "row_id"));
  tile.classList.toggle("starred", stars > 0);
  star.textContent = stars > 1 ? `★${stars}` : "★";
  star.setAttribute("aria-label", stars ? `stars: ${stars}` : "star");
  const isMarked = app.marked.includes(row);
  tile.classList.toggle("marked", isMarked);
  tile.setAttribute("aria-selected", String(isMarked));
  mark.setAttribute("aria-label", isMarked ? "selected to compare" : "select to compare");
}

/**
 * Plays the videos of the tiles that are in view, and no others. Players begin and end a few in each frame, in order:
 * what was asked of the page, and the stills, are seen before.
 */
class Player {
  constructor(root) {
    this.isPaused = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.inView = new Set();
    this.paused = new WeakSet(); // tiles, by their own
    this.sound = new Audio();
    this.tasks = [];
    this.isTogether = false; // one clock for all
    setInterval(() => { if (this.isTogether) this.keepStep(); }, STEP_MS);
    this.observer = new IntersectionObserver((entries) => this.seen(entries), { root, threshold: 0.4 });
  }

  watch(tile) {
    if (tile.clip.kind === "video") this.observer.observe(tile);
  }

  forget(tile) {
    this.observer.unobserve(tile);
    this.inView.delete(tile);
    this.stop(tile);
  }

  seen(entries) {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) this.inView.add(target);
      else { this.inView.delete(target); this.stop(target); }
    }
    this.play();
  }

  pauseAll(isPaused) {
    this.isPaused = isPaused;
    this.play();
  }

  /** Pause or play one tile. */
  toggle(tile) {
    if (tile.clip?.kind === "audio") this.toggleSound(tile);
    else if (this.isPaused || this.paused.has(tile)) this.start(tile);
    else { this.paused.add(tile); this.rest(tile); }
  }

  toggleSound(tile) {
    const url = new URL(urlOf(tile.clip.path), location.href).href;
    if (this.sound.src === url && !this.sound.paused) this.sound.pause();
    else { this.sound.src = url; this.sound.play().catch(() => {}); }
  }

  play() {
    let numPlaying = 0;
    for (const tile of this.inView) {
      const mayPlay = !this.isPaused && !this.paused.has(tile) && numPlaying++ < MAX_PLAYING;
      if (mayPlay) this.start(tile);
      else this.rest(tile);
      if (!mayPlay && !tile.video && !tile.clip.preview && numPlaying++ < MAX_PLAYING) this.open(tile); // its first frame
    }
  }

  start(tile) {
    this.paused.delete(tile);
    tile.isWanted = true;
    if (tile.video) this.run(tile);
    else this.soon(() => { if (tile.isWanted) { this.open(tile); this.run(tile); } });
  }

  run(tile) {
    if (tile.video?.ended && this.isTogether) return; // it waits for the longest
    tile.video?.play().catch(() => {}); // taken out of view before it began
  }

  rest(tile) {
    tile.isWanted = false;
    tile.video?.pause();
  }

  /** Keep clips in step with the longest of them. Shorter ones wait at their end, and all begin again together. */
  keepStep() {
    const videos = [...this.inView].filter((tile) => tile.isWanted && tile.video?.readyState > 1).map((tile) => tile.video);
    if (!videos.length) return;
    const leader = videos.reduce((one, other) => (other.duration > one.duration ? other : one));
    for (const video of videos) {
      const time = leader.ended ? 0 : leader.currentTime;
      const isBehind = Math.abs(video.currentTime - Math.min(time, video.duration)) > MAX_DRIFT_S && !video.seeking;
      if (leader.ended || isBehind) video.currentTime = time;
      if (leader.ended || (isBehind && time < video.duration)) video.play().catch(() => {});
    }
  }

  soon(task) {
    this.tasks.push(task);
    if (this.tasks.length === 1) this.nextFrame();
  }

  nextFrame() {
    requestAnimationFrame(() => setTimeout(() => { // after it is painted
      const end = performance.now() + AT_ONCE_MS;
      while (this.tasks.length && performance.now() < end) this.tasks.shift()();
      if (this.tasks.length) this.nextFrame();
    }));
  }

  open(tile) {
    if (tile.video || tile.isBroken) return;
    const video = element("video", { muted: true, loop: !this.isTogether, playsInline: true, preload: "auto", disablePictureInPicture: true, tabIndex: -1, "aria-hidden": "true" });
    video.onloadeddata = () => video.classList.add("ready");
    video.onerror = () => { tile.isBroken = true; this.stop(tile); tile.classList.add("unplayable"); };
    video.src = urlOf(tile.clip.path);
    tile.video = video;
    tile.querySelector(".frame").append(video);
  }

  stop(tile) {
    const { video } = tile;
    tile.isWanted = false;
    if (!video) return;
    tile.video = null;
    video.onerror = null;
    video.pause();
    video.remove();
    this.soon(() => { // else the browser keeps its decoder
      video.removeAttribute("src");
      video.load();
    });
  }
}
