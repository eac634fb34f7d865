"use strict";
// A row by itself: its clip, its record, how to replay it, its stars and note.

const FIRST_NAMES = ["error_type", "message", "prompt", "negative_prompt", "seed", "scheduler", "recipe", "lora"];
const LAST_ROLES = { argument: 0, carried: 1, record: 2 };

async function showDetails(app, table, row) {
  const dialog = byId("details");
  const values = new Map(await table.row(row));
  dialog.row = row;
  const isClip = table === app.records;
  const path = isClip ? values.get("path") : null;
  const close = element("button", { className: "close icon", textContent: "×", "aria-label": "Close", title: "Close (Esc)", onclick: () => dialog.close() });
  dialog.replaceChildren(close,
    isClip ? element("div", { className: "stage" }, stageOf(app, values)) : null,
    isClip ? element("div", { className: "hands" }, starsOf(app, values.get("row_id")), noteOf(app, values.get("row_id"))) : null,
    path ? element("p", { className: "links" }, element("a", { href: urlOf(path), target: "_blank", rel: "noopener", textContent: path })) : null,
    isClip ? commandOf(app, values.get("row_id")) : null,
    recordOf(table, values));
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}

/** Return what plays a clip, with its controls; in place of what no browser plays its still. */
function stageOf(app, values) {
  const [path, preview] = [values.get("path"), values.get("preview_path")];
  const kind = kindOf(path);
  if (kind === "video") return checked(app, playerOf(path, preview));
  if (kind === "audio") return checked(app, element("audio", { src: urlOf(path), controls: true }));
  if (kind === "image") return checked(app, element("img", { src: urlOf(path), alt: "the clip" }));
  const why = path ? `Browsers do not play ${path.slice(path.indexOf("."))}: the link opens the file.` : "There is no clip.";
  return element("figure", {}, preview ? element("img", { src: urlOf(preview), alt: "a still of the clip" }) : null, element("figcaption", { textContent: why }));
}

function playerOf(path, preview) {
  const video = element("video", { src: urlOf(path), controls: true, loop: true, muted: true, playsInline: true, autoplay: !matchMedia("(prefers-reduced-motion: reduce)").matches });
  if (preview) video.poster = urlOf(preview);
  return video;
}

/** Return what shows a clip; where it cannot, it gives way to what to do: browsers do not say why. */
function checked(app, player) {
  const command = (...words) => element("code", { textContent: ["framefleet", ...words.map(shellQuoted)].join(" ") });
  player.onerror = () => player.replaceWith(element("p", { className: "unplayed" },
    "The clip is gone or damaged, or this browser does not play its codec. ", command("verify", outputOf(app), "--files"), " finds out; ",
    command("repair", outputOf(app)), " takes it out, for the job to render it again."));
  return player;
}

/** Go a frame back or forth. */
function stepFrame(video, fps, by) {
  video.pause();
  const frame = Math.round(video.currentTime * fps - 0.5) + by;
  const last = Math.max(0, Math.round((video.duration || 0) * fps) - 1);
  video.currentTime = (Math.max(0, Math.min(last, frame)) + 0.5) / fps; // its middle: times of frames are rounded
}

function starsOf(app, rowId) {
  const group = element("span", { className: "stars", role: "radiogroup", "aria-label": "Stars" });
  for (let stars = 1; stars <= MAX_STARS; stars++) {
    const isSet = () => app.picks.get(rowId).stars >= stars;
    const button = element("button", { className: "icon", textContent: isSet() ? "★" : "☆", role: "radio", "aria-label": `stars: ${stars}`, "aria-checked": String(app.picks.get(rowId).stars === stars) });
    button.classList.toggle("set", isSet());
    button.onclick = () => {
      app.picks.set(rowId, { stars: app.picks.get(rowId).stars === stars ? 0 : stars });
      group.replaceWith(starsOf(app, rowId));
    };
    group.append(button);
  }
  return group;
}

function noteOf(app, rowId) {
  const note = element("textarea", { id: "note", rows: 1, maxLength: MAX_NOTE, dir: "auto", placeholder: "Note (n)", "aria-label": "Note", value: app.picks.get(rowId).note });
  note.oninput = () => app.picks.set(rowId, { note: note.value });
  return note;
}

/** Return the command that renders a row again, to be copied. */
function commandOf(app, rowId) {
  const command = `framefleet replay ${shellQuoted(outputOf(app))} ${rowId}`;
  const copy = element("button", { textContent: "Copy" });
  copy.onclick = async () => {
    try {
      await navigator.clipboard.writeText(command);
      copy.textContent = "Copied";
    } catch { // not allowed here: it is selected instead
      getSelection().selectAllChildren(copy.previousSibling);
    }
  };
  return element("p", { className: "command" }, element("code", { textContent: command }), copy);
}

/** Return where the output is: of a folder where it is now, else what the manifest says. */
function outputOf(app) {
  if (location.protocol !== "file:") return app.manifest.output;
  return decodeURIComponent(new URL("..", location.href).pathname).replace(/(?<=.)\/$/, "").replace(/^\/(?=[A-Za-z]:)/, "");
}

function shellQuoted(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'"'"'`)}'`;
}

function recordOf(table, values) {
  const place = (name) => (FIRST_NAMES.includes(name) ? FIRST_NAMES.indexOf(name) - 100 : LAST_ROLES[table.column(name).role]);
  const names = [...values.keys()].filter((name) => values.get(name) !== null).sort((one, other) => place(one) - place(other));
  const empty = [...values.keys()].filter((name) => values.get(name) === null);
  const list = element("dl", { className: "record" });
  for (const name of names) list.append(element("dt", {}, element("bdi", { textContent: name })), element("dd", {}, cellOf(values.get(name))));
  if (empty.length) list.append(element("dt", { textContent: "empty" }), element("dd", { className: "empty", textContent: empty.join(", ") }));
  return list;
}

function cellOf(value) {
  const text = prettyJson(value) ?? String(value);
  return element(text.includes("\n") ? "pre" : "bdi", { dir: "auto", textContent: text });
}

function prettyJson(value) {
  if (typeof value !== "string" || !/^[[{]/.test(value)) return null;
  try {
    const found = JSON.parse(value);
    return Object.keys(found).length > 2 ? JSON.stringify(found, null, 2) : null;
  } catch {
    return null;
  }
}
