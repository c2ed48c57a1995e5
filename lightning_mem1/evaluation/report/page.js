"use strict";
// Every text of the data goes into the page as textContent, never as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const find = (id) => document.getElementById(id);
const NAMES = { prompt: "prompt", turn: "turn", memory: "memory", information: "information", other: "other" };
const gains = data.episodes.flatMap((episode) => episode.turns.flatMap((turn) => turn.advantages || []));
const LARGEST_GAIN = gains.reduce((top, value) => Math.max(top, Math.abs(value ?? 0)), 0);
// what was kept before memories had turns of their own
data.episodes.forEach(({ turns }) => turns.forEach((turn, index) => { turn.kind ??= "act"; turn.number ??= index; }));
let visible = [], current = -1;

function make(tag, className, text, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined && text !== null) element.textContent = text;
  element.append(...children);
  return element;
}

const count = (number, word) => `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`;
const number = (value, digits = 2) => (value === null ? "not finite" : value.toFixed(digits));
const signed = (value) => (value === null ? "not finite" : (value > 0 ? "+" : "") + value.toPrecision(3));
const named = ([kind, turn, , start]) => (turn < 0 ? NAMES[kind] : `${start === undefined ? "" : "part of "}${NAMES[kind]} ${turn}`);
const titled = (turn) => (turn.kind === "memory" ? `memory after turn ${turn.number}` : `turn ${turn.number}`);
const tokensOf = (parts) => parts.reduce((sum, part) => sum + part[2], 0);
const acts = (episode) => episode.acts ?? episode.turns.length + episode.turns_left_out;
const fullTokens = (turn) => tokensOf(turn.context) + tokensOf(turn.dropped) + turn.written;

function bar(turn, largest) {
  const line = make("div", "bar");
  const add = (className, tokens, title) => {
    const piece = make("i", className);
    piece.style.width = `${(100 * tokens) / largest}%`;
    piece.title = `${title}: ${count(tokens, "token")}`;
    if (tokens) line.append(piece);
  };
  const age = (part) => (part[1] >= 0 && part[1] < turn.number - 1 ? " older" : "");
  turn.context.forEach((part) => add(part[0] + age(part), part[2], named(part)));
  add("wrote", turn.written, "written in this turn");
  add("gone", tokensOf(turn.dropped), "dropped");
  return line;
}

function legend() {
  const entry = (className, text) => make("span", "", null, make("i", className), text);
  return make("p", "legend soft", null, entry("prompt", "prompt"), entry("turn", "kept turn or memory"),
    entry("information", "information"), entry("information older", "older ones paler"), entry("wrote", "written now"), entry("gone", "dropped"));
}

function contextTexts(episode, turn) {
  const box = make("details", "", null, make("summary", "", "the context, part by part"));
  box.addEventListener("toggle", () => {
    if (!box.open || box.childElementCount > 1) return;
    turn.context.forEach((part) => {
      const [kind, index, tokens, start = 0] = part, wanted = kind === "memory" ? "memory" : "act";
      const from = episode.turns.find((each) => each.kind === wanted && each.number === index);
      const text = from === turn ? "(the opening that asks for it)" : kind === "prompt" ? episode.prompt
        : kind === "turn" || kind === "memory" ? from.pieces.slice(start, start + tokens).join("")
        : kind === "information" ? from.information : "(made by the memory mode)";
      box.append(make("h4", "", `${named(part)}, ${count(tokens, "token")}`), make("pre", kind, text));
    });
  });
  return box;
}

function difference(turn) {
  const box = make("div", "diff");
  const tags = { "=": "span", "+": "ins", "-": "del" };
  turn.diff.forEach(([op, words]) => box.append(make(tags[op], "", words)));
  if (!turn.diff.length) box.append(make("span", "soft", "(none)"));
  return box;
}

function shade(element, turn, place) {
  const gain = turn.advantages ? turn.advantages[place] : null, logprob = turn.logprobs[place];
  let color = "";
  if (find("shade").value === "advantage" && turn.advantages) {
    color = `rgba(var(${gain > 0 ? "--gain" : "--loss"}), ${LARGEST_GAIN ? (0.75 * Math.abs(gain)) / LARGEST_GAIN : 0})`;
  } else if (logprob !== null && logprob !== undefined) {
    color = `rgba(var(--likely), ${Math.min(0.85, -logprob / 4)})`;
  }
  element.style.backgroundColor = color;
}

function numbers(turn, place) {
  const logprob = turn.logprobs[place] ?? null;
  const text = logprob === null ? "log-prob not finite"
    : `log-prob ${logprob.toFixed(4)} nats, probability ${Math.exp(logprob).toPrecision(3)}`;
  return text + (turn.advantages ? `, advantage ${signed(turn.advantages[place])}` : "");
}

function tokens(turn) {
  const box = make("div", "tokens"), read = make("p", "read");
  read.setAttribute("aria-live", "polite");
  box.tabIndex = 0;
  box.setAttribute("aria-label", "tokens that the policy wrote; arrow keys read their numbers");
  let chosen = -1;
  const spans = turn.pieces.map((piece, place) => {
    const inState = place >= turn.state[0] && place < turn.state[1];
    const span = make("span", inState ? "state" : "", piece);
    span.title = `token ${place}: ${numbers(turn, place)}`;
    shade(span, turn, place);
    span.addEventListener("click", () => choose(place));
    return span;
  });
  const choose = (place) => {
    if (place < 0 || place >= spans.length) return;
    if (chosen >= 0) spans[chosen].classList.remove("chosen");
    chosen = place;
    spans[place].classList.add("chosen");
    read.textContent = `token ${place} "${turn.pieces[place]}": ${numbers(turn, place)}`;
  };
  box.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    choose(chosen < 0 ? 0 : chosen + step);
  });
  const known = turn.logprobs.filter((value) => value !== null), sum = known.reduce((a, b) => a + b, 0);
  if (known.length) read.textContent = `mean log-prob ${(sum / known.length).toPrecision(2)} nats; choose a token for its own`;
  box.append(...spans);
  return [box, read];
}

function turnCard(episode, turn, index, largest) {
  const card = make("section", turn.valid ? "card" : "card invalid");
  card.id = `turn-${index}`;
  card.tabIndex = -1;
  const head = make("div", "head", null, make("h3", "", titled(turn)));
  if (!turn.valid) head.append(make("span", "bad", turn.retried ? "invalid, written again" : "invalid"));
  if (turn.reward) head.append(make("span", turn.reward > 0 ? "good" : "bad", `reward ${signed(turn.reward)}`));
  const gone = tokensOf(turn.dropped);
  head.append(make("span", "soft", `saw ${count(tokensOf(turn.context), "token")}, wrote ${turn.written}, dropped ${gone}`));
  const kept = turn.context.map((part) => `${named(part)} (${part[2]})`).join(", ");
  card.append(head, bar(turn, largest), make("p", "soft", `kept: ${kept}`));
  if (gone) card.append(make("p", "soft", `dropped: ${turn.dropped.map((part) => `${named(part)} (${part[2]})`).join(", ")}`));
  card.append(contextTexts(episode, turn));
  if (turn.diff) {
    const since = turn.number ? `, changes since turn ${turn.number - 1}` : "";
    card.append(make("h4", "", `internal state${since}`), difference(turn));
  }
  card.append(make("h4", "", "written, token by token (dotted: the internal state)"), ...tokens(turn));
  const cut = turn.written - turn.pieces.length;
  if (cut) card.append(make("p", "soft", `${count(cut, "further token")} left out`));
  if (turn.kind !== "memory") card.append(make("h4", "", "action"), make("pre", "turn", turn.action === null ? "(malformed)" : turn.action));
  if (turn.information) {
    const size = turn.information_tokens ? `, ${count(turn.information_tokens, "token")}` : ", in no context";
    card.append(make("h4", "", `information${size}`), make("pre", "information", turn.information));
  }
  const told = Object.entries(turn.info).map(([key, value]) => `${key} ${value}`).join(", ");
  if (told) card.append(make("p", "soft", `the environment's own numbers: ${told}`));
  return card;
}

function overview(episode, largest) {
  const box = make("div", "overview");
  episode.turns.forEach((turn, index) => {
    const link = make("a", "", turn.kind === "memory" ? `memory ${turn.number}` : `turn ${turn.number}`);
    link.href = `#turn-${index}`;
    link.addEventListener("click", (event) => { event.preventDefault(); goToTurn(index); });
    box.append(link, bar(turn, largest), make("span", "count soft", count(tokensOf(turn.context), "token")));
  });
  return box;
}

function show(index) {
  const episode = data.episodes[index], main = find("main");
  current = index;
  main.replaceChildren();
  for (const button of find("list").querySelectorAll("button")) {
    button.setAttribute("aria-current", String(Number(button.dataset.index) === index));
  }
  if (!episode) {
    main.append(make("p", "soft", "no trajectory passes the filter"));
    return;
  }
  const largest = Math.max(1, ...episode.turns.map(fullTokens));
  const top = make("section", "card", null, make("h2", "", episode.task));
  const facts = [`reward ${number(episode.reward)}`, `success ${number(episode.success, 0)}`,
    `ended by ${episode.stop.replace("_", " ")}`, count(acts(episode), "turn"),
    `${episode.invalid} invalid`, `memory ${episode.memory}`, `${number(episode.seconds)} s`, `seed ${episode.seed}`];
  top.append(make("p", "", facts.join(" · ")));
  if (episode.error) top.append(make("p", "bad", `error: ${episode.error}`));
  top.append(make("h4", "", "context by turn"), legend(), overview(episode, largest));
  top.append(make("h4", "", "prompt"), make("pre", "prompt", episode.prompt));
  main.append(top, ...episode.turns.map((turn, place) => turnCard(episode, turn, place, largest)));
  if (episode.turns_left_out) main.append(make("p", "soft", `${count(episode.turns_left_out, "further turn")} left out`));
}

function goToTurn(index) {
  const card = find(`turn-${index}`);
  if (!card) return;
  card.focus({ preventScroll: true });
  card.scrollIntoView({ block: "start" });
}

function stepTurn(step) {
  const at = /^turn-(\d+)$/.exec(document.activeElement?.closest?.("section.card[id]")?.id || "");
  goToTurn(at ? Number(at[1]) + step : 0);
}

function stepEpisode(step) {
  const place = visible.indexOf(current) + step;
  if (place < 0 || place >= visible.length) return;
  show(visible[place]);
  window.scrollTo(0, 0);
  find("list").querySelector('[aria-current="true"]').scrollIntoView({ block: "nearest" });
}

function passes(episode) {
  const below = find("below").value;
  return (!find("row").value || episode.row === find("row").value)
    && (!find("stop").value || episode.stop === find("stop").value)
    && (!find("invalid").checked || episode.invalid > 0)
    && (below === "" || episode.reward === null || episode.reward < Number(below));
}

function entry(index) {
  const episode = data.episodes[index], button = make("button", "", episode.task);
  button.type = "button";
  button.dataset.index = String(index);
  const words = [`reward ${number(episode.reward)}`, episode.stop.replace("_", " "), count(acts(episode), "turn")];
  if (episode.invalid) words.push(`${episode.invalid} invalid`);
  button.append(make("small", "", episode.row), make("small", episode.success ? "good" : "", words.join(", ")));
  button.addEventListener("click", () => { show(index); window.scrollTo(0, 0); });
  return button;
}

function filter() {
  visible = data.episodes.map((_, index) => index).filter((index) => passes(data.episodes[index]));
  find("list").replaceChildren(...visible.map(entry));
  find("shown").textContent = `${visible.length} of ${data.episodes.length} shown`;
  show(visible.includes(current) ? current : visible.length ? visible[0] : -1);
}

function begin() {
  const offer = (id, key) => [...new Set(data.episodes.map((episode) => episode[key]))].forEach((value) => {
    const option = make("option", "", key === "stop" ? value.replace("_", " ") : value);
    option.value = value;
    find(id).append(option);
  });
  offer("row", "row");
  offer("stop", "stop");
  find("row").parentElement.hidden = find("row").options.length < 3;
  find("shade").parentElement.hidden = !data.episodes.some((episode) => episode.turns.some((turn) => turn.advantages));
  for (const id of ["row", "stop", "invalid", "below"]) find(id).addEventListener("input", filter);
  find("shade").addEventListener("input", () => show(current));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT)$/.test(event.target.tagName)) return;
    const keys = { j: () => stepEpisode(1), k: () => stepEpisode(-1), n: () => stepTurn(1), p: () => stepTurn(-1) };
    if (keys[event.key]) keys[event.key]();
  });
  filter();
}

begin();
