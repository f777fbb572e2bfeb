import { words } from "./words";

export const t = words({
  title: ["Write a cell", "写一个循环单元"],
  about: [
    "Type the equations of one step. The formula, the diagram, the schedule and the gradient follow from them as you type.",
    "写下一步的方程。公式、结构图、执行计划和反向传播方程随输入即时推导。",
  ],
  from: ["Begin from", "起点"],
  choose: ["your own text", "自己的文本"],
  equations: ["Equations of one step", "一步的方程"],
  good: ["{name} works: {kind}, {n} weights at 64 inputs and 64 units.", "{name} 可用：{kind}；输入 64、单元 64 时有 {n} 个权重。"],
  checking: ["Reading …", "读取中……"],
  goTo: ["Go there", "跳到该处"],
  stale: ["Below is the last version that worked.", "下方为最近一次可用的版本。"],
  formula: ["Formula", "公式"],
  diagram: ["Diagram", "结构图"],
  backward: ["Backward, derived", "推导出的反向方程"],
  backwardAbout: ["δv is the gradient of the loss with respect to v.", "δv 是损失对 v 的梯度。"],
  plan: ["Plan", "执行计划"],
  planAbout: ["What is computed before, in and after the loop over the steps; found from the equations.", "哪些在时间循环之前、之中、之后计算；由方程自动得出。"],
  race: ["Race it against LSTM", "与 LSTM 赛跑"],
  stop: ["Stop", "停止"],
  on: ["on", "任务"],
  result: ["{name} against lstm", "{name} 对 lstm"],
  keyRace: ["race it, from within the text too", "开始赛跑（编辑时也可用）"],
});
