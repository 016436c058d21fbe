// The report's images: threshold slider, filter by class, order. The state is in the address, as in
// report.html#threshold=0.3&class=ring&order=worst&overlay=1.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const IGNORE = 255;
  const element = (id) => document.getElementById(id);
  const percent = (value, digits) => (100 * value).toFixed(digits);
  const state = { threshold: data.used ?? 0, class: "", order: "split", overlay: false };

  // How many thresholds a level exceeds.
  const exceeded = new Uint8Array(256);
  (data.firstLevels ?? []).forEach((first, count) => exceeded.fill(count, first));

  // === One image ===

  class Card {
    constructor(article, about, position) {
      this.article = article;
      this.position = position; // in the split
      this.classes = about.classes;
      this.maps = about.maps;
      this.scores = about.scores;
      this.scoreText = article.querySelector(".score");
      this.figure = article.querySelector("figure.label");
    }

    // Read the maps: of each pixel the strongest class, how many thresholds it exceeds, its truth.
    async decode() {
      const { ids, width, height, png } = this.maps;
      const picture = new Image();
      await new Promise((resolve, reject) => {
        Object.assign(picture, { onload: resolve, onerror: reject, src: png });
      });
      const canvas = document.createElement("canvas");
      canvas.width = width;
      canvas.height = picture.height;
      const context = canvas.getContext("2d", { willReadFrequently: true });
      context.drawImage(picture, 0, 0);
      const pixels = context.getImageData(0, 0, width, picture.height).data;
      const size = width * height;
      const winner = new Uint8Array(size);
      const levels = new Uint8Array(size);
      const inOrder = ids.map((id, plane) => ({ id, plane })).sort((a, b) => a.id - b.id);
      for (const { id, plane } of inOrder) {
        for (let i = 0, at = 4 * plane * size; i < size; i++, at += 4) {
          if (pixels[at] > levels[i]) {
            levels[i] = pixels[at];
            winner[i] = id;
          }
        }
      }
      const truth = new Uint8Array(size);
      for (let i = 0, at = 4 * ids.length * size; i < size; i++, at += 4) truth[i] = pixels[at];
      Object.assign(this, { winner, level: levels.map((level) => exceeded[level]), truth });
      this.canvas = document.createElement("canvas");
      this.canvas.width = width;
      this.canvas.height = height;
      this.canvas.setAttribute("role", "img");
      this.figure.querySelector("img").replaceWith(this.canvas);
    }

    // The scores at a threshold, as image_scores in explorer.py.
    measure(threshold) {
      // Counts by mask value.
      const [hits, ofTruth, ofLabel] = [0, 1, 2].map(() => new Uint32Array(256));
      let pixels = 0;
      for (let i = 0; i < this.truth.length; i++) {
        const truth = this.truth[i];
        if (truth === IGNORE) continue;
        const label = this.level[i] > threshold ? this.winner[i] : 0;
        pixels++;
        ofTruth[truth]++;
        ofLabel[label]++;
        if (truth === label) hits[truth]++;
      }
      const iou = {};
      for (let id = 0; id < IGNORE; id++) {
        const union = ofTruth[id] + ofLabel[id] - hits[id];
        if (union) iou[id] = hits[id] / union;
      }
      const right = hits.reduce((sum, count) => sum + count, 0);
      const values = Object.values(iou);
      const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
      this.scores = {
        iou, miou: pixels ? mean : null, accuracy: pixels ? right / pixels : null,
      };
    }

    paint(threshold, overlay) {
      const { width, height } = this.canvas;
      const context = this.canvas.getContext("2d", { willReadFrequently: true });
      const photo = this.article.querySelector("figure img");
      if (overlay) context.drawImage(photo, 0, 0, width, height);
      const image = overlay
        ? context.getImageData(0, 0, width, height)
        : context.createImageData(width, height);
      const seen = new Set();
      for (let i = 0; i < this.level.length; i++) {
        const label = this.level[i] > threshold ? this.winner[i] : 0;
        seen.add(label);
        // Over the picture: the background stays as it is.
        const opacity = overlay ? (label ? 0.6 : 0) : 1;
        for (let c = 0; c < 3; c++) {
          const colour = data.colours[label][c];
          image.data[4 * i + c] = opacity * colour + (1 - opacity) * image.data[4 * i + c];
        }
        image.data[4 * i + 3] = 255;
      }
      context.putImageData(image, 0, 0);
      const caption = `pseudo label at ${data.thresholds[threshold]}`;
      this.figure.querySelector("figcaption").textContent = caption;
      const names = [...seen].sort((a, b) => a - b).map((id) => data.classes[id]);
      this.canvas.setAttribute("aria-label", `${caption}: ${names.join(", ")}`);
    }

    // The score to sort by; null sorts last.
    score(id) {
      return id < 0 ? this.scores.miou : (this.scores.iou[id] ?? null);
    }

    say(id) {
      const { miou, accuracy } = this.scores;
      const parts = miou === null ? ["no ground truth"] : [`mIoU ${percent(miou, 1)}`];
      if (id >= 0 && this.score(id) !== null) {
        parts.push(`${data.classes[id]} ${percent(this.score(id), 1)}`);
      }
      if (accuracy !== null) parts.push(`${percent(accuracy, 1)} % of pixels right`);
      this.scoreText.textContent = parts.join(" · ");
    }
  }

  const section = element("images");
  const cards = [...section.querySelectorAll("article")].map(
    (article, i) => new Card(article, data.images[i], i),
  );

  // === All of them ===

  const chosenClass = () => data.classes.indexOf(state.class);

  function relabel() {
    for (const card of cards) {
      if (!card.canvas) continue;
      card.measure(state.threshold);
      if (!card.article.hidden) card.paint(state.threshold, state.overlay);
    }
    for (const card of cards) card.say(chosenClass());
    showThreshold();
  }

  function filter() {
    const id = chosenClass();
    for (const card of cards) card.article.hidden = id >= 0 && !card.classes.includes(id);
    const shown = cards.filter((card) => !card.article.hidden).length;
    element("count").textContent = `${shown} of ${cards.length} images`;
  }

  function sort() {
    const id = chosenClass();
    const sign = { worst: 1, best: -1, split: 0 }[state.order];
    const compare = (a, b) => {
      const [x, y] = [a.score(id), b.score(id)];
      if (!sign || x === y) return a.position - b.position;
      if (x === null || y === null) return x === null ? 1 : -1;
      return sign * (x - y);
    };
    const sorted = [...cards].sort(compare);
    // Moving an element takes the focus from what is in it.
    const isSorted = sorted.every((card, i) => section.children[i] === card.article);
    if (!isSorted) section.append(...sorted.map((card) => card.article));
  }

  function showThreshold() {
    if (!data.thresholds.length) return;
    const { thresholds, miou } = data;
    const i = state.threshold;
    element("threshold").value = i;
    element("threshold").setAttribute("aria-valuetext", `${thresholds[i]}`);
    element("threshold-value").textContent = `${thresholds[i]}`;
    if (!element("curve")) return; // nothing is scored
    const best = miou.indexOf(Math.max(...miou));
    const low = Math.min(...miou), high = Math.max(...miou);
    const first = thresholds[0], last = thresholds[thresholds.length - 1];
    const x = (k) => 8 + (284 * (thresholds[k] - first)) / (last - first || 1);
    const y = (k) => 70 - (60 * (miou[k] - low)) / (high - low || 1);
    element("curve").setAttribute("points", thresholds.map((_, k) => `${x(k)},${y(k)}`).join(" "));
    element("best").setAttribute("d", `M${x(best)} ${y(best)}V80`);
    element("point").setAttribute("cx", x(i));
    element("point").setAttribute("cy", y(i));
    element("threshold-score").textContent =
      `mean IoU of the split ${percent(miou[i], 2)} % at ${thresholds[i]}, ` +
      `best ${percent(miou[best], 2)} % at ${thresholds[best]}`;
  }

  function show() {
    element("class").value = state.class;
    element("order").value = state.order;
    if (element("overlay")) element("overlay").checked = state.overlay;
    filter();
    relabel();
    sort();
  }

  // === State in the address ===

  function read() {
    const given = new URLSearchParams(location.hash.slice(1));
    const wanted = parseFloat(given.get("threshold"));
    const distance = (k) => Math.abs(data.thresholds[k] - wanted);
    if (data.thresholds.length && Number.isFinite(wanted)) {
      state.threshold = [...data.thresholds.keys()].reduce((a, b) =>
        distance(b) < distance(a) ? b : a,
      );
    } else {
      state.threshold = data.used ?? 0;
    }
    const name = given.get("class") ?? "";
    const options = [...element("class").options].map((option) => option.value);
    state.class = options.includes(name) ? name : "";
    const order = given.get("order");
    state.order = ["worst", "best"].includes(order) ? order : "split";
    state.overlay = given.get("overlay") === "1" && data.thresholds.length > 0;
  }

  function write() {
    const given = new URLSearchParams();
    if (data.thresholds.length && state.threshold !== data.used) {
      given.set("threshold", data.thresholds[state.threshold]);
    }
    if (state.class) given.set("class", state.class);
    if (state.order !== "split") given.set("order", state.order);
    if (state.overlay) given.set("overlay", "1");
    const hash = `#${given}`;
    if (hash !== (location.hash || "#")) history.replaceState(null, "", hash);
  }

  function bind(id, event, change) {
    element(id)?.addEventListener(event, () => {
      change(element(id));
      show();
      write();
    });
  }

  let frame = 0;
  element("threshold")?.addEventListener("input", () => {
    // While the slider is dragged images keep their places; they are sorted when it is let go.
    state.threshold = Number(element("threshold").value);
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(relabel);
  });
  bind("threshold", "change", (slider) => (state.threshold = Number(slider.value)));
  bind("class", "change", (select) => (state.class = select.value));
  bind("order", "change", (select) => (state.order = select.value));
  bind("overlay", "change", (box) => (state.overlay = box.checked));
  element("controls").addEventListener("submit", (event) => event.preventDefault());
  addEventListener("hashchange", () => {
    read();
    show();
  });

  async function start() {
    read();
    element("controls").hidden = false;
    show();
    for (const card of cards) {
      if (!card.maps) continue;
      await card.decode();
      card.measure(state.threshold);
      card.paint(state.threshold, state.overlay);
    }
    show();
    section.dataset.ready = "true";
  }
  start();
})();
