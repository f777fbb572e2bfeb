import { words } from "./words";

export const t = words({
  title: ["Talk to a model", "与模型对话"],
  about: [
    "Open something you trained. Read its state while it reads or writes, colour the text by any unit, and hold a unit still to see what it was for.",
    "打开你训练的模型。在它读写时查看状态，用任一单元为文字着色，固定一个单元看看它的作用。",
  ],
  none: [
    "There are no runs here yet. Train something, for instance with everloop demo, and start the lab where its runs folder is.",
    "这里还没有训练结果。先训练一个模型（例如 everloop demo），再在 runs 文件夹所在处启动实验室。",
  ],
  run: ["Run", "训练结果"],
  opening: ["Opening …", "正在打开……"],
  prompt: ["It goes on from", "开头"],
  temperature: ["Temperature", "温度"],
  length: ["Pieces", "长度"],
  seed: ["Seed", "随机种子"],
  generate: ["Write on", "续写"],
  stop: ["Stop", "停止"],
  type: ["Type, it reads along", "输入文字，模型同步阅读"],
  choices: ["What it weighed for the last piece", "最后一步的候选"],
  says: ["What it says", "它的判断"],
  text: ["The text, coloured by unit {unit}", "按单元 {unit} 着色的文字"],
  empty: ["Nothing read yet.", "还没有读入内容。"],
  states: ["State", "状态"],
  unit: ["Unit", "单元"],
  hold: ["Hold the unit at", "把该单元固定为"],
  apply: ["Hold", "固定"],
  release: ["Let go of unit {unit}, held at {value}", "放开单元 {unit}（固定为 {value}）"],
  without: ["Nothing is held: the network runs as it was trained.", "没有固定任何单元：网络按训练时的样子运行。"],
  keyUnit: ["on the state: another unit", "在状态图上：换一个单元"],
});
