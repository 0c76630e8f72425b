// Draws directed edges as gently bent ribbons with an arrow head. The bend separates the two directions between the same two nodes.

import { EdgeProgram, type ProgramInfo } from "sigma/rendering";
import type { EdgeDisplayData, NodeDisplayData, RenderParams } from "sigma/types";
import { floatColor } from "sigma/utils";

const FLOAT = 5126;
const UNSIGNED_BYTE = 5121;
const TRIANGLES = 4;
const SEGMENTS = 14;

export interface EdgeLook {
  alpha: number;
}

// language=GLSL
const VERTEX = /* glsl */ `
attribute vec4 a_color;
attribute vec2 a_source;
attribute vec2 a_target;
attribute vec4 a_style;   // source radius, target radius, thickness, alpha
attribute vec3 a_step;    // share of the way, side, 1 for the head

uniform mat3 u_matrix;
uniform float u_sizeRatio;
uniform float u_correctionRatio;
uniform float u_pixelRatio;

varying vec4 v_color;
varying float v_side;
varying float v_half;
varying float v_alpha;

const float BEND = 0.11;

void main() {
  float unit = 2.0 * u_correctionRatio;          // one pixel in the plane of positions
  float thickness = a_style.z;
  vec2 way = a_target - a_source;
  float len = max(length(way), 1e-6);
  vec2 along = way / len;
  vec2 normal = vec2(-along.y, along.x);
  vec2 control = (a_source + a_target) * 0.5 + normal * len * BEND;

  float pixels = len / unit;
  float head = min((5.0 + thickness * 2.6), pixels * 0.3);
  float from = clamp((a_style.x / u_sizeRatio) / pixels, 0.0, 0.45);
  float tip = 1.0 - clamp((a_style.y / u_sizeRatio + 1.5) / pixels, 0.0, 0.45);
  float neck = max(from, tip - head / pixels);

  float t = a_step.z > 0.5 ? mix(neck, tip, a_step.x) : mix(from, neck, a_step.x);
  vec2 place = mix(mix(a_source, control, t), mix(control, a_target, t), t);
  vec2 heading = normalize(mix(control - a_source, a_target - control, t));
  vec2 side = vec2(-heading.y, heading.x);

  float body = thickness * 0.5;
  float halfWidth = a_step.z > 0.5 ? mix(head * 0.46, 0.0, a_step.x) : body;
  float feather = 0.75 / u_pixelRatio;
  float reach = halfWidth + feather;
  place += side * a_step.y * reach * unit;

  gl_Position = vec4((u_matrix * vec3(place, 1.0)).xy, 0.0, 1.0);
  v_color = a_color;
  v_side = a_step.y * reach;
  v_half = halfWidth;
  v_alpha = a_style.w;
}
`;

// language=GLSL
const FRAGMENT = /* glsl */ `
precision highp float;

varying vec4 v_color;
varying float v_side;
varying float v_half;
varying float v_alpha;

uniform float u_pixelRatio;

void main() {
  float feather = 0.75 / u_pixelRatio;
  float cover = 1.0 - smoothstep(v_half - feather, v_half + feather, abs(v_side));
  gl_FragColor = vec4(v_color.rgb, 1.0) * (cover * v_alpha);
}
`;

const UNIFORMS = ["u_matrix", "u_sizeRatio", "u_correctionRatio", "u_pixelRatio"] as const;

/** Two triangles per piece of the ribbon, and two for the head. */
function ribbon(): number[][] {
  const points: number[][] = [];
  const quad = (from: number, to: number, head: number): void => {
    points.push([from, -1, head], [from, 1, head], [to, -1, head], [to, -1, head], [from, 1, head], [to, 1, head]);
  };
  for (let piece = 0; piece < SEGMENTS; piece += 1) quad(piece / SEGMENTS, (piece + 1) / SEGMENTS, 0);
  quad(0, 1, 1);
  return points;
}

export class RibbonProgram extends EdgeProgram<(typeof UNIFORMS)[number]> {
  override getDefinition() {
    const data = ribbon();
    return {
      VERTICES: data.length,
      VERTEX_SHADER_SOURCE: VERTEX,
      FRAGMENT_SHADER_SOURCE: FRAGMENT,
      METHOD: TRIANGLES,
      UNIFORMS,
      ATTRIBUTES: [
        { name: "a_source", size: 2, type: FLOAT },
        { name: "a_target", size: 2, type: FLOAT },
        { name: "a_style", size: 4, type: FLOAT },
        { name: "a_color", size: 4, type: UNSIGNED_BYTE, normalized: true },
      ],
      CONSTANT_ATTRIBUTES: [{ name: "a_step", size: 3, type: FLOAT }],
      CONSTANT_DATA: data,
    };
  }

  override processVisibleItem(
    _edgeIndex: number,
    start: number,
    source: NodeDisplayData,
    target: NodeDisplayData,
    data: EdgeDisplayData & Partial<EdgeLook>,
  ): void {
    const array = this.array;
    let at = start;
    array[at++] = source.x;
    array[at++] = source.y;
    array[at++] = target.x;
    array[at++] = target.y;
    array[at++] = source.size;
    array[at++] = target.size;
    array[at++] = data.size;
    array[at++] = data.alpha ?? 1;
    array[at++] = floatColor(data.color);
  }

  override setUniforms(params: RenderParams, { gl, uniformLocations }: ProgramInfo<(typeof UNIFORMS)[number]>): void {
    gl.uniform1f(uniformLocations.u_sizeRatio, params.sizeRatio);
    gl.uniform1f(uniformLocations.u_correctionRatio, params.correctionRatio);
    gl.uniform1f(uniformLocations.u_pixelRatio, params.pixelRatio);
    gl.uniformMatrix3fv(uniformLocations.u_matrix, false, params.matrix);
  }
}
