{
  const data = JSON.parse(document.getElementById("embeddings").textContent);
  const map = document.querySelector(".map"), plot = map.querySelector(".points"), face = map.querySelector(".face");
  const buttons = [...map.querySelectorAll("[data-class]")], onlyWrong = map.querySelector(".wrong");
  const REACH = 30, RADIUS = data.ids.length > 1000 ? 2 : 3;  // pixels
  const colours = ["#D55E00", "#8A8A8A", "#CC79A7", "#E69F00", "#56B4E9", "#0072B2", "#009E73"];
  const colour = label => colours[label] ?? `hsl(${label * 137.5 % 360} 65% 50%)`;
  const isPressed = button => button.getAttribute("aria-pressed") === "true";
  const isWrong = index => data.labels[index] !== data.answers[index];
  const sheet = new Image();
  let shown = [], places = [], selected = -1;

  const draw = () => {
    const ratio = devicePixelRatio, width = plot.clientWidth, height = plot.clientHeight, edge = 8;
    plot.width = width * ratio;
    plot.height = height * ratio;
    const scale = Math.min((width - 2 * edge) / (data.width || 1), (height - 2 * edge) / (data.height || 1));
    const left = (width - scale * data.width) / 2, top = (height - scale * data.height) / 2;
    places = data.x.map((x, index) => [left + scale * x, top + scale * (data.height - data.y[index])]);
    const context = plot.getContext("2d");
    context.scale(ratio, ratio);
    context.globalAlpha = 0.8;
    for (const index of shown) {
      const [x, y] = places[index];
      context.fillStyle = context.strokeStyle = colour(data.labels[index]);
      context.beginPath();
      if (isWrong(index)) {
        const arm = RADIUS + 0.5;
        context.moveTo(x - arm, y - arm); context.lineTo(x + arm, y + arm);
        context.moveTo(x - arm, y + arm); context.lineTo(x + arm, y - arm);
        context.stroke();
      } else {
        context.arc(x, y, RADIUS, 0, 7);
        context.fill();
      }
    }
    if (selected < 0) return;
    context.globalAlpha = 1;
    context.strokeStyle = getComputedStyle(plot).color;
    context.lineWidth = 2;
    context.beginPath();
    context.arc(...places[selected], RADIUS + 5, 0, 7);
    context.stroke();
  };
  const filter = () => {
    const on = new Set(buttons.filter(isPressed).map(button => Number(button.dataset.class)));
    shown = data.ids.map((_, index) => index).filter(
      index => on.has(data.labels[index]) && (!isPressed(onlyWrong) || isWrong(index)));
    if (!shown.includes(selected)) selected = -1;
    draw();
  };
  const select = index => {
    selected = index;
    const { side, columns, classes } = data;
    face.querySelector("canvas").getContext("2d").drawImage(
      sheet, index % columns * side, Math.floor(index / columns) * side, side, side, 0, 0, side, side);
    const answer = `${classes[data.answers[index]]} ${data.percents[index]} %`;
    const lines = [`true class: ${classes[data.labels[index]]}`, `predicted: ${answer}`, data.ids[index]];
    const parts = lines.map((line, number) => Object.assign(document.createElement(number ? "span" : "b"), { textContent: line }));
    face.querySelector("p").replaceChildren(...parts);
    face.classList.toggle("bad", isWrong(index));
    draw();
  };
  const nearest = cost => shown.reduce(([best, least], index) => {
    const value = cost(...places[index], index);
    return value < least ? [index, value] : [best, least];
  }, [-1, Infinity]);
  const point = event => {
    const { left, top } = plot.getBoundingClientRect(), x = event.clientX - left, y = event.clientY - top;
    const [index, distance] = nearest((a, b) => Math.hypot(a - x, b - y));
    if (distance <= REACH && index !== selected) select(index);
  };
  const DIRECTIONS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const step = event => {
    const direction = DIRECTIONS[event.key];
    if (!direction) return;
    event.preventDefault();
    const [x, y] = places[selected] ?? [plot.clientWidth / 2, plot.clientHeight / 2];
    const [index] = nearest((a, b, other) => {
      const along = (a - x) * direction[0] + (b - y) * direction[1];
      const across = Math.abs((a - x) * direction[1]) + Math.abs((b - y) * direction[0]);
      if (selected < 0) return Math.hypot(along, across);
      return other === selected || along <= 0 || across > along ? Infinity : along + across;
    });
    if (index >= 0) select(index);
  };
  const toggle = event => {
    const button = event.currentTarget;
    button.setAttribute("aria-pressed", String(!isPressed(button)));
    filter();
  };
  buttons.forEach((button, label) => { button.firstElementChild.style.background = colour(label) });
  for (const button of [...buttons, onlyWrong]) button.addEventListener("click", toggle);
  plot.addEventListener("pointermove", point);
  plot.addEventListener("pointerdown", point);
  plot.addEventListener("keydown", step);
  new ResizeObserver(draw).observe(plot);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  sheet.src = data.sheet;
  filter();
}
