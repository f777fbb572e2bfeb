import { words } from "./words";

export const t = words({
  how: ["Arrow keys move: left and right by a step, up and down by a unit.", "方向键移动：左右一步，上下一个单元。"],
  place: ["unit {unit} · step {step} {name} ", "单元 {unit} · 第 {step} 步 {name} "],
});
