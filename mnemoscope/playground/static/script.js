"use strict";
// Texts go into the page as text nodes and values alone.

const $ = id => document.getElementById(id);
const WAIT = 150;         // ms between the last key and the question
const SLIDE = 60;         // ms between two questions while the slider moves
const LINK = 8000;        // characters of a link, at most
const SIGNS = { kept: "✓", altered: "≠", lost: "×" };
const MINUS = "−", THIN = "\u202f";
let choices, timer = null, asking = null, unheard = false, again = false, atEnd = false;

// ---- texts ----------------------------------------------------------------------------------------------------------

/** Characters that show nothing, or turn what stands around them, by their number. */
const visible = text => text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g,
  c => `‹${c.charCodeAt(0).toString(16).padStart(4, "0")}›`);
const asToken = text => visible(text).replace(/\n/g, "↵").replace(/\t/g, "⇥");
const points = text => { let n = 0; for (const _ of text) n++; return n; };
const plural = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;
const number = (x, digits = 1) => x === null ? "–" : (Math.round(x * 10 ** digits) / 10 ** digits + 0).toFixed(digits).replace("-", MINUS);
const percent = x => x === null ? "–" : x !== 0 && Math.abs(x) < 0.001 ? `< 0.1${THIN}%` : number(100 * x) + THIN + "%";

function element(tag, text = "", className = "") {
  const made = document.createElement(tag);
  if (text) made.textContent = text;
  if (className) made.className = className;
  return made;
}

// ---- what is chosen -------------------------------------------------------------------------------------------------

function fill(select, options, wanted) {
  select.replaceChildren(...options.map(({ value, text }) => {
    const option = element("option", text);
    option.value = value;
    return option;
  }));
  if (options.some(o => o.value === wanted)) select.value = wanted;
}

function offer(length, condition) {
  const of = choices.decoders.find(d => d.name === $("decoder").value);
  fill($("length"), of.lengths.map(n => ({ value: String(n), text: String(n) })), length || (of.lengths.includes(32) ? "32" : String(of.lengths.at(-1))));
  fill($("condition"), of.conditions.map(c => ({ value: c.name, text: `${c.name.split("@")[0]}: ${c.words}` })), condition);
}

function said() {
  const lengths = choices.decoders.find(d => d.name === $("decoder").value).lengths;
  const range = lengths.length > 1 ? `${lengths[0]} to ${lengths.at(-1)}` : `${lengths[0]}`;
  $("window-note").textContent = `At position p the model has read the last ${$("length").value} tokens before p, or all of them where there are fewer, from an empty memory: `
    + `its decoder was trained on such windows, of ${range} tokens (${lengths.join(", ")}; between them it was not).`;
  $("screen").hidden = !$("condition").value.includes("@");
}

// ---- asking ---------------------------------------------------------------------------------------------------------

/** Asks once nothing has changed for a while; while the slider moves, now and then. */
function soon(sliding = false) {
  said();
  if (sliding && timer !== null) return;
  clearTimeout(timer);
  timer = setTimeout(() => { timer = null; ask(); }, sliding ? SLIDE : WAIT);
}

/** One question at a time: the next one cuts short the writing of the last, but lets it show what was read. */
async function ask() {
  if (unheard) { again = true; return; }
  asking?.abort();
  const mine = asking = new AbortController();
  const changed = $("changing").hidden ? null : $("changed").value;
  for (const text of [$("text").value, changed ?? ""]) {
    const n = text.length > choices.characters ? points(text) : 0;
    if (n > choices.characters) return refuse(`The text has ${plural(n, "character")}; at most ${choices.characters.toLocaleString("en")} are read.`);
  }
  const position = atEnd ? null : Number($("position").value);
  const question = { text: $("text").value, changed, decoder: $("decoder").value, condition: $("condition").value, length: Number($("length").value), position };
  document.body.dataset.state = "asking";
  unheard = true;
  const heardOf = () => {
    unheard = false;
    if (again) { again = false; ask(); }
  };
  try {
    const answer = await fetch("/read", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(question), signal: mine.signal });
    if (!answer.ok) {
      const { problem, remedy } = await answer.json();
      refuse(sentence(problem, remedy));
      return heardOf();
    }
    $("problem").hidden = true;
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    while (mine === asking) {
      const { done, value } = await reader.read();
      if (done) break;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const piece of lines.map(line => JSON.parse(line))) show[piece.kind](piece);
      if (unheard) heardOf();
    }
    if (mine === asking && document.body.dataset.state === "asking") document.body.dataset.state = "done";
  } catch (error) {
    if (error.name === "AbortError") return;
    unheard = again = false;
    refuse("The playground does not answer. Is it still running?");
  }
}

const sentence = (problem, remedy) => `${problem[0].toUpperCase()}${problem.slice(1)}. ${remedy}.`;

/** Says what is wrong, and shows nothing that belongs to something else. */
function refuse(text) {
  $("problem").textContent = text;
  $("problem").hidden = false;
  $("result").hidden = $("changed-result").hidden = true;
  $("noticed").textContent = "";
  document.body.dataset.state = "refused";
}

// ---- showing --------------------------------------------------------------------------------------------------------

const parts = of => of === "text" ? { tokens: $("tokens"), written: $("written") } : { tokens: $("changed-tokens"), written: $("changed-written") };
const heard = {};

/** The places of tokens that are shown as one: a character is spelt by several, of which all but the first have no piece. */
function wholes(pieces) {
  const found = [];
  pieces.forEach((piece, i) => { if (piece || !i) found.push([i]); else found.at(-1).push(i); });
  return found;
}
const sum = values => values.includes(null) ? null : values.reduce((a, b) => a + b, 0);

const show = {
  read(piece) {
    heard[piece.of] = piece;
    const { tokens, written } = parts(piece.of);
    const changes = new Set(piece.changes);
    tokens.replaceChildren(...wholes(piece.pieces).map(those => {
      const changed = those.some(i => changes.has(i)), item = element("li", "", changed ? "change" : "");
      const spelt = element("bdi", asToken(piece.pieces[those[0]]) || "·");
      item.append(spelt, element("span", "\u00a0", "s"));
      if (changed) item.prepend(element("span", "changed: ", "sr"));
      if (piece.bits) {
        const [kept, prior] = [piece.bits, piece.prior].map(bits => sum(those.map(i => bits[i])));
        item.append(element("span", number(kept), "b"));
        item.title = `${number(kept, 2)} of ${number(prior, 2)} bits` + (those.length > 1 ? `; ${those.length} tokens spell it` : "");
      }
      return item;
    }));
    written.textContent = "…";
    if (piece.of === "changed") { $("changed-result").hidden = false; return; }
    $("result").hidden = false;
    const slider = $("position");
    slider.min = piece.least;
    slider.max = piece.tokens;
    if (!again && timer === null) { // else the slider has moved on
      slider.value = piece.position;
      atEnd = piece.position === piece.tokens;
    }
    place();
    $("before").textContent = (piece.first > 0 && piece.before.length > 0 ? "… " : "") + visible(piece.before);
    $("after").textContent = visible(piece.after) + (piece.after ? " …" : "");
    $("finding").textContent = bitsSaid(piece);
    $("noticed").textContent = "";
    $("changed-result").hidden = true;
  },
  writing(piece) { parts(piece.of).written.textContent = visible(piece.text) + " …"; },
  written(piece) {
    const { tokens, written } = parts(piece.of);
    written.textContent = visible(piece.text) || "(nothing)";
    wholes(heard[piece.of].pieces).forEach((those, at) => {
      const item = tokens.children[at], all = new Set(those.map(i => piece.operations[i]));
      const became = all.size === 1 ? [...all][0] : "altered";
      item.classList.add(became);
      const sign = item.querySelector(".s");
      sign.replaceChildren(SIGNS[became], element("span", ` ${became} `, "sr"));
      if (became === "altered") sign.append(element("bdi", asToken(piece.partners[those[0]])));
    });
    if (piece.of === "text") {
      const n = piece.operations.length;
      $("finding").textContent = `Written back at their place: ${piece.kept} of ${plural(n, "token")} (${percent(piece.kept / n)}). ${bitsSaid(heard.text)}`;
    }
  },
  moved(piece) {
    const kinds = [...new Set(piece.parts.map(p => p.part))];
    $("moved-head").replaceChildren(...["layer", ...kinds].map(k => { const th = element("th", k); th.scope = "col"; return th; }));
    const layers = new Map();
    for (const p of piece.parts) layers.set(p.layer, { ...layers.get(p.layer), [p.part]: p.share });
    $("moved-rows").replaceChildren(...[...layers].map(([layer, of]) => {
      const row = element("tr"), head = element("th", String(layer));
      head.scope = "row";
      row.append(head, ...kinds.map(k => {
        const cell = element("td", k in of ? percent(of[k]) : "–"), bar = element("meter");
        bar.max = 1; bar.value = of[k] ?? 0; bar.setAttribute("aria-hidden", "true");
        cell.append(bar);
        return cell;
      }));
      return row;
    }));
    heard.moved = piece.parts.map(p => p.share).filter(x => x !== null);
  },
  compared(piece) {
    const most = Math.max(0, ...heard.moved);
    if (!piece.inside) $("noticed").textContent = $("text").value === $("changed").value ? "Nothing is changed yet." : "The change lies outside what has been read here; move the slider.";
    else {
      const memory = most === 0 ? "The memory does not notice: it is the same, bit for bit." : `The memory notices: its parts moved by up to ${percent(most)} of the way to an unrelated text’s.`;
      const writing = piece.differing === 0 ? "The decoder writes the same as before." : `The decoder writes otherwise (${plural(piece.differing, "token edit")} apart)`
        + (piece.put_in ? `; of ${plural(piece.put_in, "token")} put in, it gives back ${piece.found}.` : ".");
      $("noticed").textContent = `${memory} ${writing}`;
    }
  },
  refused(piece) { refuse(sentence(piece.problem, piece.remedy)); },
};

function bitsSaid(piece) {
  if (piece.kept_bits === null || piece.prior_bits === null) return "";
  const share = piece.prior_bits > 0 ? ` (${percent(piece.kept_bits / piece.prior_bits)})` : "";
  return `Bits retained: ${number(piece.kept_bits)} of the ${number(piece.prior_bits)} that there were to retain${share}.`;
}

function place() {
  const slider = $("position");
  $("place").textContent = `token ${slider.value} of ${slider.max}`;
  slider.setAttribute("aria-valuetext", `after token ${slider.value} of ${slider.max}`);
}

// ---- sharing --------------------------------------------------------------------------------------------------------

function share() {
  const held = new URLSearchParams({ t: $("text").value, d: $("decoder").value, w: $("length").value, c: $("condition").value, p: $("position").value });
  if (!$("changing").hidden) held.set("e", $("changed").value);
  const link = `${location.origin}/#${held}`;
  $("link-field").hidden = link.length > LINK;
  if (link.length > LINK) {
    $("shared").textContent = `Too long for a link: it would have ${link.length.toLocaleString("en")} characters, and at most ${LINK.toLocaleString("en")} travel well. Shorten the text.`;
    return;
  }
  $("link").value = link;
  $("link").select();
  $("shared").textContent = "";
  navigator.clipboard?.writeText(link).then(() => { $("shared").textContent = "Copied."; }, () => {});
}

/** The state that a link holds; what is not on offer here is left as it is, and named. */
function restore() {
  if (location.href.length > LINK) {
    $("shared").textContent = "The link that was opened is longer than any that is made here, and was not read.";
    return false;
  }
  const held = new URLSearchParams(location.hash.slice(1));
  if (!held.has("t")) return false;
  $("text").value = held.get("t");
  $("example").value = "";
  if (choices.decoders.some(d => d.name === held.get("d"))) $("decoder").value = held.get("d");
  offer(held.get("w"), held.get("c"));
  reveal(held.has("e"));
  $("changed").value = held.get("e") ?? "";
  const absent = [["decoder", "d"], ["length", "w"], ["condition", "c"]].filter(([id, key]) => held.has(key) && held.get(key) !== $(id).value);
  $("shared").textContent = absent.map(([id, key]) => `The link asks for ${id} ${visible(held.get(key))}, which is not to be had here; ${$(id).value} is shown.`).join(" ");
  const p = Number(held.get("p"));
  aim(Number.isInteger(p) && p > 0 ? p : null);
  return true;
}

/** Sets the position before it is known how many there are. */
function aim(position) {
  const slider = $("position");
  atEnd = position === null;
  slider.max = Math.max(slider.max, position ?? 1);
  slider.value = position ?? slider.max;
}

function reveal(on) {
  $("changing").hidden = !on;
  $("change").setAttribute("aria-expanded", String(on));
  $("change").textContent = on ? "Stop comparing" : "Change the text";
}

function example(name) {
  const found = choices.examples.find(e => e.name === name);
  if (!found) return;
  $("text").value = found.text;
  if (!$("changing").hidden) $("changed").value = found.text;
  aim(Number($("length").value));
}

async function start() {
  choices = await (await fetch("/about")).json();
  $("model").textContent = choices.model;
  $("numbers").textContent = choices.numbers.toLocaleString("en");
  fill($("example"), [{ value: "", text: "your own" }, ...choices.examples.map(e => ({ value: e.name, text: e.name }))], "");
  fill($("decoder"), choices.decoders.map(d => ({ value: d.name, text: d.name })), "");
  $("decoder-field").hidden = choices.decoders.length === 1;
  offer();
  if (!restore()) {
    $("example").value = choices.examples[0].name;
    example($("example").value);
  }
  $("form").addEventListener("submit", e => e.preventDefault());
  $("text").addEventListener("input", () => { $("example").value = ""; soon(); });
  $("changed").addEventListener("input", () => soon());
  $("position").addEventListener("input", () => { atEnd = $("position").value === $("position").max; place(); soon(true); });
  $("example").addEventListener("change", () => { example($("example").value); soon(); });
  $("decoder").addEventListener("change", () => { offer($("length").value, $("condition").value); soon(); });
  $("length").addEventListener("change", () => {
    if (Number($("position").value) < Number($("length").value)) aim(Number($("length").value));
    soon();
  });
  $("condition").addEventListener("change", () => soon());
  $("change").addEventListener("click", () => {
    reveal($("changing").hidden);
    if (!$("changing").hidden) { $("changed").value = $("text").value; $("changed").focus(); }
    soon();
  });
  $("share").addEventListener("click", share);
  addEventListener("hashchange", () => { if (restore()) soon(); });
  said();
  ask();
}

start();
