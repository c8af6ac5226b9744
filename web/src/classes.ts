// Asks the person what the run calls their labels, where it has other names for them.
import { byId, made, show } from "./dom";
import type { Welcome } from "./protocol";

function options({ classes, num_classes: many }: Welcome): HTMLOptionElement[] {
  return Array.from({ length: many }, (_, place) => {
    return made("option", { value: String(place), textContent: String(classes?.[place] ?? place) });
  });
}

/** The class of each label. Resolves when the person has said. */
export function askClasses(labels: string[], welcome: Welcome): Promise<Record<string, number>> {
  const choices = labels.map((label) => {
    const choice = made("select", {});
    choice.append(...options(welcome));
    const row = made("label", { textContent: `Your “${label}” is the run's ` });
    row.append(choice);
    return { label, choice, row };
  });
  byId("class-choices").replaceChildren(...choices.map(({ row }) => row));
  show("ask-classes", true);
  choices[0].choice.focus();
  return new Promise((resolve) => {
    byId<HTMLFormElement>("ask-classes").onsubmit = (event) => {
      event.preventDefault();
      show("ask-classes", false);
      resolve(Object.fromEntries(choices.map(({ label, choice }) => [label, Number(choice.value)])));
    };
  });
}
