"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const strips = new Map([...document.querySelectorAll(".strip")].map((s) => [Number(s.dataset.index), s]));
  const index = $("index");
  const rows = new Map([...index.tBodies[0].rows].map((r) => [Number(r.dataset.index), r]));
  const collator = new Intl.Collator("en", { numeric: true });
  let measure = 0;
  let order = data.names.map((_, i) => i);

  // Light or dark: as the system has it until the reader chooses.
  const scheme = $("scheme");
  scheme.hidden = false;
  scheme.addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.scheme ? root.dataset.scheme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.scheme = dark ? "light" : "dark";
  });

  // Click, Enter or Space on a head; the same one again turns the order around.
  function sortable(heads, sort) {
    heads.forEach((head, column) => {
      head.tabIndex = 0;
      const go = () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        sort(column, down ? -1 : 1);
      };
      head.addEventListener("click", go);
      head.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === " ") {
          event.preventDefault();
          go();
        }
      });
    });
  }

  document.querySelectorAll("table.sortable").forEach((table) => {
    const body = table.tBodies[0];
    sortable([...table.tHead.rows[table.tHead.rows.length - 1].cells], (column, sign) => {
      const key = (row) => row.cells[column].dataset.value;
      const compare = (a, b) => {
        const [x, y] = [Number(a), Number(b)];
        return a === "" || b === "" || Number.isNaN(x) || Number.isNaN(y) ? collator.compare(a, b) : x - y;
      };
      body.append(...[...body.rows].sort((a, b) => sign * compare(key(a), key(b))));
    });
  });

  // The list of pictures leads the strips: they follow its order and filter.
  const values = (column) => {
    const methods = data.methods.length;
    if (column <= methods) return (i) => data.scores[measure][i][column - 1];
    return column === methods + 1 ? (i) => data.spread[i] : (i) => data.conflict[i];
  };
  function arrange() {
    index.tBodies[0].append(...order.map((i) => rows.get(i)));
    $("strips").append(...order.map((i) => strips.get(i)));
  }
  const heads = [...index.tHead.rows[0].cells];
  let sorted = null;
  function sortPictures(column, sign) {
    sorted = [column, sign];
    if (column === 0) order.sort((a, b) => sign * collator.compare(data.names[a], data.names[b]) || a - b);
    else {
      const value = values(column);
      order.sort((a, b) => sign * (value(a) - value(b)) || a - b);
    }
    arrange();
  }
  sortable(heads, sortPictures);

  $("tools").hidden = false;
  $("tools").addEventListener("submit", (event) => event.preventDefault());
  $("measure").addEventListener("change", (event) => {
    measure = Number(event.target.value);
    for (const [i, row] of rows) {
      data.scores[measure][i].forEach((score, k) => { row.cells[k + 1].textContent = score.toFixed(data.decimals[measure]); });
    }
    if (sorted && sorted[0] > 0 && sorted[0] <= data.methods.length) sortPictures(...sorted);
  });
  const shown = () => order.filter((i) => !strips.get(i).hidden);
  function filter() {
    const wanted = $("filter").value.trim().toLowerCase();
    data.names.forEach((name, i) => {
      const hidden = !name.toLowerCase().includes(wanted);
      strips.get(i).hidden = rows.get(i).hidden = hidden;
    });
    const count = shown().length;
    $("count").textContent = wanted ? `${count} of ${data.names.length} pictures` : `${count} picture${count === 1 ? "" : "s"}`;
  }
  $("filter").addEventListener("input", filter);
  filter();

  // The viewer: left and right go through the versions of a picture, in place; up and down through the pictures.
  const viewer = $("viewer");
  let at = 0, version = 0;
  const links = (i) => [...strips.get(i).querySelectorAll("a.view")];
  const tabs = data.labels.map((label, k) => {
    const tab = document.createElement("button");
    tab.type = "button";
    tab.textContent = label;
    tab.addEventListener("click", () => show(at, k));
    $("viewer-tabs").append(tab);
    return tab;
  });
  function show(picture, k) {
    [at, version] = [picture, k];
    $("viewer-image").src = links(at)[k].href;
    $("viewer-image").alt = `${data.names[at]}, ${data.labels[k]}`;
    $("viewer-title").textContent = `${data.names[at]} · ${data.labels[k]}`;
    const own = [...strips.get(at).querySelectorAll("tr.score")];
    const scores = own
      .map((row) => [row.cells[0].textContent, row.cells[k + 1].textContent])
      .filter(([, score]) => score)
      .map(([name, score]) => Object.assign(document.createElement("i"), { textContent: `${name} ${score}` }));
    $("viewer-scores").replaceChildren(...scores);
    tabs.forEach((tab, other) => tab.setAttribute("aria-pressed", String(other === k)));
    if (!viewer.open) viewer.showModal();
  }
  const turn = (by) => show(at, (version + by + tabs.length) % tabs.length);
  function go(by) {
    const all = shown();
    const place = all.indexOf(at) + by;
    if (place >= 0 && place < all.length) show(all[place], version);
  }
  for (const [i] of strips) {
    links(i).forEach((link, k) => link.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      show(i, k);
    }));
  }
  $("viewer-back").addEventListener("click", () => turn(-1));
  $("viewer-on").addEventListener("click", () => turn(1));
  $("viewer-close").addEventListener("click", () => viewer.close());
  $("viewer-image").addEventListener("click", () => viewer.close());
  viewer.addEventListener("close", () => {
    const link = links(at)[version];
    link.scrollIntoView({ block: "nearest", behavior: "instant" });
    link.focus({ preventScroll: true });
  });
  viewer.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: () => turn(-1), ArrowRight: () => turn(1), ArrowUp: () => go(-1), ArrowDown: () => go(1) }[event.key];
    if (step) {
      event.preventDefault();
      step();
    } else if (/^[1-9]$/.test(event.key) && Number(event.key) <= tabs.length) show(at, Number(event.key) - 1);
  });
})();
