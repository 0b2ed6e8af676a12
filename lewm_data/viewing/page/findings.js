// Findings, one group per code, each with its remedy and a link to its frames.

const MOST_SHOWN = 50;

function findingsSection(open) {
  const groups = new Map();
  for (const found of data.findings) groups.set(found.code, [...(groups.get(found.code) ?? []), found]);
  const rest = data.numFindings - data.findings.length;
  return el("section", { id: "findings", class: groups.size === 0 ? "line" : null, "aria-labelledby": "findings-title" },
    el("h2", { id: "findings-title" }, "Findings"),
    groups.size === 0 && el("p", {}, "none"),
    [...groups.values()].map((group) => findingGroup(group, open)),
    rest > 0 && el("p", { class: "note" }, `This page leaves out ${plural(rest, "more finding")}; lewm-data inspect --json lists all.`));
}

function findingGroup(group, open) {
  const [{ code, severity, remedy, expected, found: seen }] = group;
  const list = el("ul", { class: "found" });
  const showMore = (start) => {
    list.append(...group.slice(start, start + MOST_SHOWN).map((found) => finding(found, open)));
    const rest = group.length - start - MOST_SHOWN;
    if (rest <= 0) return;
    const more = el("li", {}, el("button", { type: "button", onclick: () => {
      more.remove();
      showMore(start + MOST_SHOWN);
      list.children[start + MOST_SHOWN].querySelector("button")?.focus();
    } }, `Show ${count(Math.min(rest, MOST_SHOWN))} more`));
    list.append(more);
  };
  showMore(0);
  return el("details", { class: `group ${severity}`, open: severity === "error" || data.findings.length <= 6 },
    el("summary", {}, el("span", { class: `badge ${severity}` }, severity), el("code", {}, code),
      el("span", {}, group.length > 1 ? `× ${count(group.length)}` : ""),
      group.length === 1 && el("span", { class: "gist" }, `expected ${expected}, found ${seen}.`), el("span", { class: "quiet" }, unbroken(remedy))),
    list);
}

const HANDLING = { refused: "refuses the dataset", dropped: "the conversion dropped the episode", kept: "kept and marked" };

function finding(found, open) {
  const where = found.step === null ? "" : `, step ${count(found.step)}`;
  const place = found.position === null
    ? el("b", {}, found.episode === null ? "dataset" : `episode ${found.episode}${data.isConverted ? " of the source" : ""}`)
    : el("button", { type: "button", class: "link", onclick: () => open(found.position, found.step) },
      `${nameOf(found.position)}${where}`);
  return el("li", {}, findingFrames(found), el("div", {}, place, " ",
    el("span", {}, `expected ${found.expected}, found ${found.found}`),
    HANDLING[found.handling] && el("span", { class: "quiet" }, ` (${HANDLING[found.handling]})`),
    found.file && el("div", { class: "quiet file" }, found.file)));
}

// The frames of every camera at the step of a finding.
function findingFrames(found) {
  const detail = data.shown[found.position];
  const number = detail?.steps.indexOf(found.step) ?? -1;
  if (number < 0) return null;
  return el("div", { class: "concerned" }, detail.strips.map((strip, camera) =>
    sheet(strip, { class: "single" },
      frame(strip, detail.steps.length, number,
        `${data.cameras[camera]} at step ${found.step} of ${nameOf(found.position)}`))));
}
