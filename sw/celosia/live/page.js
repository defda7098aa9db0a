// Asks for the newest answer and shows it. What comes is text, whatever it looks like: nothing of it
// becomes part of the page's own elements but through textContent, a width, and a picture's data.
"use strict";

const SOON_MS = 100, LATER_MS = 1000, IDLE_MS = 4000;
const at = (id) => document.getElementById(id);
let mark = "", changed = 0;

function milliseconds(value) {
  if (value === null || value === undefined) return "–";
  return (value >= 100 ? value.toFixed(0) : value.toPrecision(3)) + " ms";
}

function bar() {
  const row = document.createElement("li");
  for (const name of ["name", "track", "value"]) {
    const part = document.createElement("span");
    part.className = name;
    row.append(part);
  }
  const fill = document.createElement("span");
  fill.className = "fill";
  row.children[1].append(fill);
  return row;
}

function bars(found) {
  const list = at("bars");
  while (list.children.length > found.length) list.lastElementChild.remove();
  while (list.children.length < found.length) list.append(bar());
  found.forEach((entry, number) => {
    const row = list.children[number];
    row.className = entry.best ? "best" : "";
    row.children[0].textContent = entry.name;
    row.children[0].title = entry.name;
    row.children[1].firstElementChild.style.width = 100 * Math.min(Math.max(entry.length, 0), 1) + "%";
    row.children[2].textContent = entry.text;
  });
}

function show(state) {
  mark = state.mark;
  changed = Date.now();
  at("about").textContent = state.about;
  at("scale").textContent = state.per_cent ? "Per cent: " + state.per_cent + "." : "";
  at("count").textContent = state.count.toLocaleString("en");
  at("skipped").hidden = !state.skipped;
  at("skipped").textContent = state.skipped + " refused and skipped; the terminal says why.";
  at("rate").textContent = state.per_second === null ? "–" : state.per_second.toPrecision(3);
  if (!state.count) return;
  at("input").textContent = state.input;
  const best = state.bars.find((entry) => entry.best);
  at("label").textContent = best ? best.name : state.score.toPrecision(4);
  at("score").textContent = best ? best.text : "";
  at("board-name").textContent = state.cycles === null ? "on the board, predicted" : "on the board";
  at("board").textContent = milliseconds(state.ms_board);
  at("link").textContent = milliseconds(state.ms_link);
  bars(state.bars);
  at("picture").hidden = !state.picture;
  at("blank").hidden = !!state.picture;
  if (state.picture) at("picture").src = state.picture;
}

function status(name, words) {
  document.documentElement.className = name;
  at("state").textContent = words;
}

async function look() {
  let wait = SOON_MS;
  try {
    const reply = await fetch("state.json" + (mark ? "?" + mark : ""), {cache: "no-store"});
    if (reply.status === 200) show(await reply.json());
    else if (reply.status === 204) {
      if (Date.now() - changed > IDLE_MS) at("rate").textContent = "–";
    } else throw new Error(reply.statusText);
    status("live", "live");
  } catch (problem) {
    status("over", "the command has ended");
    wait = LATER_MS;
  }
  setTimeout(look, document.hidden ? LATER_MS : wait);
}

look();
