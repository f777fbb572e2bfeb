"""What the page says, in English and in Chinese."""

from __future__ import annotations

from typing import Literal

Language = Literal["en", "zh"]

WORDS: dict[str, tuple[str, str]] = {
    "why": ("Why this answer: {answer}", "为什么是这个答案：{answer}"),
    "says": ("The model says {answer}, with a probability of {share}.", "模型的答案是 {answer}，概率为 {share}。"),
    "says value": ("The model says {answer}: {value}.", "模型的答案是 {answer}：{value}。"),
    "explained": (
        "Explained here is {answer}, which it gives {share}.",
        "这里解释的是 {answer}，模型给它的概率为 {share}。",
    ),
    "explained value": ("Explained here is {answer}: {value}.", "这里解释的是 {answer}：{value}。"),
    "truth": ("The truth is {target}.", "正确答案是 {target}。"),
    "answers": ("Its answers", "模型的各个答案"),
    "what speaks": ("What speaks for it", "哪些内容支持这个答案"),
    "colours": (
        "Each piece of the input is coloured by how much it speaks for the answer {answer}, or against it. "
        "The stronger the colour, the more it counts.",
        "输入的每一片段按其支持或反对答案 {answer} 的程度着色，颜色越深，作用越大。",
    ),
    "for": ("for", "支持"),
    "against": ("against", "反对"),
    "integrated gradients": ("Integrated gradients", "积分梯度"),
    "occlusion": ("Occlusion", "遮挡"),
    "about integrated gradients": (
        "What each piece adds to the score, summed up on the way from an empty input to this one. All together miss "
        "the whole difference by {error}. What goes past the recurrent layers is held as it is.",
        "从空输入逐步走到当前输入，累加每一片段给得分带来的贡献。全部贡献之和与总差值相差{error}。"
        "不经过循环层的部分保持不变。",
    ),
    "about occlusion": (
        "How much the score falls when the piece is taken away ({ablation} in its place).",
        "把该片段去掉（代之以 {ablation}）后，得分下降多少。",
    ),
    "strongest": ("Strongest: {list}.", "作用最大的：{list}。"),
    "is it true": ("Can the colours be believed?", "这些颜色可信吗？"),
    "convinces": (
        "Yes. When the pieces that count most are taken away first, {what} falls faster than in {beaten} of {orders} "
        "random orders: the answer does rest on them.",
        "可信。先去掉作用最大的片段时，{what}比 {orders} 次随机顺序中的 {beaten} 次下降得更快：答案确实依赖于它们。",
    ),
    "does not convince": (
        "Not here. When the pieces that are said to count most are taken away first, {what} falls faster than in only "
        "{beaten} of {orders} random orders. Chance could do this: do not read much into the colours.",
        "这里不可信。先去掉据称作用最大的片段时，{what}只比 {orders} 次随机顺序中的 {beaten} 次下降得更快。"
        "这可能只是偶然：请不要过分相信这些颜色。",
    ),
    "the probability": ("the probability", "概率"),
    "the value": ("the value", "数值"),
    "gone": ("share of the pieces taken away", "被去掉的片段所占比例"),
    "most first": ("those that count most go first", "先去掉作用最大的"),
    "least first": ("those that count least go first", "先去掉作用最小的"),
    "at random": ("random orders: mean, and nine in ten of them", "随机顺序：均值与九成范围"),
    "inside": ("Inside, step by step", "逐步看内部"),
    "about inside": (
        "The network reads one piece after the other, from left to right, and carries a memory of numbers along, its "
        "units. Each column is one step.",
        "网络从左到右逐个读取片段，并带着由一组数字（单元）构成的记忆前进。每一列是一步。",
    ),
    "how to pick": (
        "Point at a step, tap it, or use the arrow keys, to see its numbers.",
        "指向或点按某一步，或使用方向键，可查看其数值。",
    ),
    "about backward": (
        "This direction reads from the end: its memory runs from right to left.",
        "这个方向从末尾读起：它的记忆从右向左传递。",
    ),
    "layer": ("Layer", "层"),
    "forward": ("left to right", "从左到右"),
    "backward": ("right to left", "从右到左"),
    "value": ("Value", "数值"),
    "state": ("memory", "记忆"),
    "output": ("output", "输出"),
    "gate": ("gate", "门"),
    "units": ("{count} units", "{count} 个单元"),
    "about map": (
        "Each row is one unit, blue where it is above zero and orange where it is below; units that move together lie "
        "together.",
        "每一行是一个单元，蓝色表示大于零，橙色表示小于零；变化相似的单元排在一起。",
    ),
    "about gates": (
        "A gate lets through a share between 0 (shut) and 1 (open): the line is the mean over all units, the band "
        "holds eight in ten of them.",
        "门放行 0（关闭）到 1（打开）之间的份额：线是所有单元的均值，色带包含八成单元。",
    ),
    "speaks": ("speaks for it", "支持程度"),
    "matters": ("how much it matters", "影响大小"),
    "gradient": ("gradient of {state}", "{state} 的梯度"),
    "and": (", ", "，"),
    "about gradients": (
        "The bars at the bottom say how strongly {what} hangs on the memory after each step: the length of the "
        "gradient through all later steps. Each line is ten times the one below; an empty and a full bar are {ranges}.",
        "最下面的条形表示{what}在多大程度上取决于每一步之后的记忆，即经过其后所有步骤的梯度长度。"
        "每条线是下一条的十倍；空条与满条分别为：{ranges}。",
    ),
    "no gradient": (
        "Nothing of {what} hangs on the memory {state} of this layer.",
        "{what}与这一层的记忆 {state} 无关。",
    ),
    "the loss": ("the loss against the truth", "相对正确答案的损失"),
    "the score": ("the score of the answer", "答案的得分"),
    "one unit": ("One unit at a time", "逐个单元查看"),
    "about units": (
        "The input once more, coloured by the value of a single unit at each step. These are the units that count most "
        "for this answer: value times gradient, summed up over the steps.",
        "再看一遍输入，按单个单元在每一步的取值着色。以下是对这个答案作用最大的单元：取值乘以梯度，对各步求和。",
    ),
    "followers": ("What single units keep track of", "单个单元在跟踪什么"),
    "about followers": (
        "Of all {units} units, the one that follows it best in one half of {count} other inputs, and how well it does "
        "in the other half.",
        "在所有 {units} 个单元中，先在另外 {count} 个输入的一半里找出跟踪得最好的单元，再在另一半上衡量它的效果。",
    ),
    "follows quotes": ("open quotation", "引号内"),
    "follows brackets": ("open bracket", "括号内"),
    "follows line": ("place in the line", "行内位置"),
    "auc": (
        "tells inside from outside in {share} of pairs (50 % is nothing)",
        "在 {share} 的配对中能区分内外（50 % 为毫无关系）",
    ),
    "correlation": ("correlation {value} (0 is nothing)", "相关系数 {value}（0 为毫无关系）"),
    "turned": ("low where the other is high", "方向相反"),
    "pick": ("Any other unit", "其他单元"),
    "unit": ("unit", "单元"),
    "range": ("from {low} to {high}", "从 {low} 到 {high}"),
    "elsewhere": ("Where else was it in this state?", "它还在哪里处于相似的状态？"),
    "about elsewhere": (
        "The steps of {count} other inputs at which the network was most alike. 1 is the same direction of all units, "
        "0 is nothing in common.",
        "在另外 {count} 个输入中，网络状态最相似的步骤。1 表示所有单元方向相同，0 表示毫无共同之处。",
    ),
    "after": ("After {piece}", "读完 {piece} 之后"),
    "attention": ("What it looked at while it wrote", "书写时看了哪里"),
    "about attention": (
        "Each row is a piece that was written; the stronger the colour of a column, the more that piece of the input "
        "was looked at.",
        "每一行是写出的一个片段；某一列颜色越深，表示输入中的该片段被关注得越多。",
    ),
    "about copied": (
        "In percent: how likely the piece is a copy of what was looked at.",
        "百分数表示该片段有多大可能是从所看之处复制的。",
    ),
    "numbers": ("About these numbers", "关于这些数字"),
    "the truth given": ("truth that was given", "给定的正确答案"),
    "runs on": ("computed on", "计算后端"),
    "score": ("score of the answer", "答案的得分"),
    "score unit": ("{score} nats (logarithm of its probability)", "{score} nats（概率的对数）"),
    "loss": ("loss", "损失"),
    "left out": ("not kept, for want of room", "因空间不足未保留"),
    "not on page": ("not on this page, for want of room", "因空间不足未放入本页"),
    "lost": ("values that are no finite numbers, shown as 0", "非有限数值（以 0 显示）"),
    "made": (
        "Every number on this page was computed from the network itself, for this one input. Nothing is loaded from "
        "elsewhere.",
        "本页的每个数字都由网络本身针对这一个输入计算得出，没有从别处加载任何内容。",
    ),
    "mean of gates": ("gates on average", "各门均值"),
    "length of gradient": ("length of the gradient", "梯度长度"),
    "nothing": ("(nothing)", "（空）"),
    "less than": ("less than {value}", "不到 {value}"),
}

FACTS = {
    "cell": "单元类型",
    "parameters": "参数",
    "text": "文本",
    "words": "词",
    "tags": "标签",
    "classes": "类别",
    "n-grams": "n 元组",
    "weights of layers and n-grams": "循环层与 n 元组的权重",
    "temperature": "温度",
    "threshold": "阈值",
    "input": "输入",
    "output": "输出",
    "window": "窗口",
    "series": "序列",
}
"""What facts about a model are called in Chinese; those of other tasks keep their names."""

MODELS = {
    "Classifier": "分类器",
    "Tagger": "标注器",
    "Generator": "生成器",
    "Forecaster": "预测器",
    "Seq2Seq": "序列到序列模型",
    "Recognizer": "识别器",
}

ABLATIONS = {
    "an unknown character": "一个未知字符",
    "an unknown word": "一个未知的词",
    "an unknown piece": "一个未知片段",
    "the mean of the training data": "训练数据的均值",
    "the mean of the rest of the window": "窗口其余部分的均值",
}

GATES: dict[str, dict[str, tuple[str, str]]] = {
    "lstm": {
        "i": ("input gate: new things in", "输入门：写入新内容"),
        "f": ("forget gate: memory kept", "遗忘门：保留记忆"),
        "o": ("output gate: memory shown", "输出门：输出记忆"),
    },
    "gru": {
        "z": ("update gate", "更新门"),
        "r": ("reset gate: memory read", "重置门：读取记忆"),
    },
}
"""What the gates of the best-known cells are called; those of others have the names that their equations give them."""


class Words:
    """The strings of one language: `words("says", answer="good", share="90 %")`."""

    def __init__(self, language: Language) -> None:
        if language not in ("en", "zh"):
            raise ValueError(f"language: {language!r} came; expected 'en' or 'zh'")
        self.language, self._column = language, ("en", "zh").index(language)

    def __call__(self, key: str, **given: str) -> str:
        return WORDS[key][self._column].format(**given)

    def gate(self, cell: str, name: str) -> str:
        known = GATES.get(cell, {}).get(name)
        return known[self._column] if known else ""

    def fact(self, name: str) -> str:
        return FACTS.get(name, name) if self.language == "zh" else name

    def model(self, name: str) -> str:
        return MODELS.get(name, name) if self.language == "zh" else name

    def ablation(self, name: str) -> str:
        return ABLATIONS.get(name, name) if self.language == "zh" else name

    def quoted(self, text: str) -> str:
        return f"“{text}”"
