// The panels, in the order of the tabs.
import type { Panel } from "./panel";
import { panel as learn } from "./learn";
import { panel as race } from "./race";
import { panel as talk } from "./talk";
import { panel as think } from "./think";
import { panel as write } from "./write";

export const panels: Panel[] = [think, learn, race, write, talk];
