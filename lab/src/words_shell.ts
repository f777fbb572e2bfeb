import { words } from "./words";

export const t = words({
  lab: ["lab", "实验室"],
  panels: ["Panels", "面板"],
  language: ["中文", "English"],
  languageName: ["Switch to Chinese", "切换到英文"],
  theme: ["Theme", "主题"],
  auto: ["As the system", "跟随系统"],
  light: ["Light", "浅色"],
  dark: ["Dark", "深色"],
  keys: ["Keyboard", "快捷键"],
  close: ["Close", "关闭"],
  connecting: ["Connecting …", "正在连接……"],
  lost: ["The connection to the lab is lost. Trying again …", "与实验室的连接已断开，正在重试……"],
  back: ["Connected again.", "已重新连接。"],
  fresh: ["The lab was started anew; this panel begins again.", "实验室已重新启动；本面板从头开始。"],
  keyPanels: ["open a panel", "打开面板"],
  keyTabs: ["walk along the tabs", "在标签间移动"],
  keyLanguage: ["Chinese or English", "切换中英文"],
  keyTheme: ["light or dark", "切换浅色/深色"],
  keyList: ["this list", "显示本列表"],
  skip: ["Skip to the panel", "跳到面板"],
});
