// The problems of the server, in both languages; one that is new there has its own name and words until it is here.
import type { Answer } from "./connection";
import { words } from "./words";

const t = words({
  copy: ["copy", "复制"],
  copyAbout: ["Four symbols are shown; after a pause they are wanted again, in their order.", "先出现四个符号，停顿之后要求按原顺序重复。"],
  adding: ["adding", "加法"],
  addingAbout: ["Two of many numbers are marked; their sum is wanted at the end.", "许多数中有两个带标记，最后要求两数之和。"],
  order: ["order", "先后"],
  orderAbout: ["Two letters stand among distractors: which were they, and which came first?", "干扰符号中藏着两个字母：是哪两个，谁在先？"],
  sine: ["sine", "正弦"],
  sineAbout: ["A wave is seen for half of the time; then it has to be carried on unseen.", "前半段能看到波形，后半段要在看不见时继续画下去。"],
  brackets: ["brackets", "括号"],
  bracketsAbout: ["Which bracket is open innermost, after one was closed?", "一个括号闭合之后，最内层未闭合的是哪种括号？"],
});

type Known = "copy" | "adding" | "order" | "sine" | "brackets";
const known = new Set<string>(["copy", "adding", "order", "sine", "brackets"]);

export function problemName({ name }: Answer): string {
  return known.has(name) ? t(name as Known) : name;
}

export function problemAbout({ name, about }: Answer): string {
  return known.has(name) ? t(`${name as Known}About`) : about;
}
