// Takes new parts into a page that is open, every few seconds; clips that play go on.
const every = 1000 * Number(document.currentScript.dataset.every);
const known = new Map();

function take(fresh) {
  const shown = document.getElementById(fresh.id);
  if (!shown) { location.reload(); return; }
  const source = fresh.innerHTML;
  if ((known.get(fresh.id) ?? shown.innerHTML) === source) { return; }
  known.set(fresh.id, source);
  for (const clip of fresh.querySelectorAll('figure')) {
    const playing = document.getElementById(clip.id);
    if (playing) { clip.replaceWith(playing); }
  }
  shown.replaceChildren(...fresh.childNodes);
  for (const video of shown.querySelectorAll('video')) { video.play().catch(() => {}); }
}

async function look() {
  let answers = false;
  try {
    const answer = document.hidden ? null : await fetch(location.href, { cache: 'no-store' });
    answers = !answer || answer.ok;
    if (answer?.ok) {
      const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
      page.querySelectorAll('main > div').forEach(take);
    }
  } catch { /* the server has ended, or the network */ }
  document.getElementById('lost').hidden = answers;
  setTimeout(look, every);
}

setTimeout(look, every);
