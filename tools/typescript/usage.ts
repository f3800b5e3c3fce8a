// What a program in TypeScript does with the types of docs/openapi.json; it is type-checked and never runs.
import type { components, paths } from "./api";

type Schemas = components["schemas"];

// The smallest requests: what has a default need not be given.
export const visualization: Schemas["VisualizationRequest"] = { model: "digits", layer: "layer3", unit: 7 };
export const batch: Schemas["BatchRequest"] = { model: "digits", layer: "layer3" };
export const range: Schemas["BatchRequest"] = { ...batch, units: { start: 8 }, preset: "fast", images: 2 };

// @ts-expect-error a unit is needed
export const incomplete: Schemas["VisualizationRequest"] = { model: "digits", layer: "layer3" };
// @ts-expect-error there is no such preset
export const unknown: Schemas["VisualizationRequest"] = { ...visualization, preset: "slow" };

// What is always answered need not be checked for; what may be null must be.
type Read = paths["/v1/visualizations/{visualization_id}"]["get"];
type Answer = Read["responses"][200]["content"]["application/json"];

export function describe(answer: Answer): string {
  const settings: number = answer.spec.steps + answer.spec.images;
  const best: number = answer.result?.achieved_activation ?? 0;
  return `${answer.state} ${settings} ${best} ${answer.links.events} ${answer.images[0]?.links.self}`;
}

export function explain(problem: Schemas["ProblemDetails"]): string {
  return problem.code === "unit_out_of_range" ? `at most ${problem.errors[0]?.maximum}` : problem.detail;
}

type Parameters = Read["parameters"];
export const parameters: Parameters = { path: { visualization_id: "5f0c6a4b7d8e9f00112233445566778a" } };
