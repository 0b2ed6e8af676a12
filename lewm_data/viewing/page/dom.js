// Builds elements, formats numbers, and unpacks curves and pictures.
// The dataset's text is untrusted: it becomes text nodes and attributes, never HTML.

const data = JSON.parse(document.getElementById("data").textContent);

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, item] of Object.entries(value)) element.style.setProperty(key, item);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);

const svg = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

// A long name may break after its dots and underscores, rather than before its last letter.
const breakable = (name) => String(name).split(/(?<=[._])/).flatMap((part, place) => (place ? [el("wbr"), part] : [part]));

const plural = (number, what) => `${count(number)} ${what}${number === 1 ? "" : "s"}`;
const count = (number) => number.toLocaleString("en");

function short(value) {
  if (value === null || !Number.isFinite(value)) return "n/a";
  const size = Math.abs(value);
  if (size >= 1e5 || (size > 0 && size < 1e-3)) return value.toExponential(1);
  return String(Number(value.toPrecision(3)));
}

// Formats a number of a curve or an axis with as many decimals as its range needs.
function within(value, low, high) {
  if (value === null) return "n/a";
  const places = high > low ? 2 - Math.floor(Math.log10(high - low)) : 2;
  return value.toFixed(Math.max(0, Math.min(12, places))).replace(/^-(0\.?0*)$/, "$1");
}

function percent(share) {
  const whole = share > 0 && share < 0.01 ? "<1" : share > 0.99 && share < 1 ? ">99" : Math.round(100 * share);
  return `${whole}%`;
}

// Text with commands and flags in it, which break between words and not after a hyphen.
const unbroken = (text) => String(text).split(/(?<=\s)/).map((word) =>
  (word.includes("-") ? [el("span", { class: "word" }, word.trimEnd()), word.trimEnd() === word ? "" : " "] : word));

const seconds = (steps) => `${(steps / data.fps).toFixed(steps / data.fps < 100 ? 1 : 0)}\u202fs`;

// Curves: little-endian uint16, 0 to 65534 between a dimension's smallest and largest value; 65535 means no value.
function unpack(text, numCurves) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const numbers = new Uint16Array(bytes.buffer);
  const length = numbers.length / numCurves;
  return Array.from({ length: numCurves }, (_, curve) =>
    Array.from(numbers.subarray(curve * length, (curve + 1) * length), (n) => (n === 65535 ? null : n / 65534)));
}

const pictureUrl = (number) => `url(data:image/webp;base64,${document.getElementById(`p${number}`).textContent})`;

// One frame of a strip: a box that shows its share of the strip's picture, which an enclosing element holds.
function frame(strip, numFrames, number, label) {
  const isAbsent = strip.picture === null || strip.absent.includes(number);
  const place = numFrames > 1 ? (100 * number) / (numFrames - 1) : 0;
  return el("span", {
    class: isAbsent ? "frame absent" : "frame",
    role: label ? "img" : null,
    "aria-label": label && isAbsent ? `${label}: no picture` : label,
    style: { "background-position": `${place}% 0`, "background-size": `${100 * numFrames}% 100%` },
  });
}

// Unpacks a picture when its place comes near the screen.
const nearby = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    nearby.unobserve(target);
    showPicture(target);
  }
}, { rootMargin: "600px" });

const showPicture = (element) => element.style.setProperty("--picture", pictureUrl(element.dataset.picture));

function sheet(strip, attributes, ...children) {
  const element = el("span", attributes, ...children);
  element.style.setProperty("--aspect", strip.aspect ?? 4 / 3);
  if (strip.picture !== null) {
    element.dataset.picture = strip.picture;
    nearby.observe(element);
  }
  return element;
}
