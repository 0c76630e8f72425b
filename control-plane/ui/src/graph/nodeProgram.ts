// Draws nodes as signed distance fields: every shape stays sharp at every zoom, and fill level, stack and rings cost no extra drawing.

import type Sigma from "sigma";
import { NodeProgram, type ProgramInfo } from "sigma/rendering";
import type { NodeDisplayData, RenderParams } from "sigma/types";
import { floatColor } from "sigma/utils";

/** Number of a shape in the shader. */
export const SHAPE_NUMBER: Readonly<Record<string, number>> = {
  circle: 0,
  square: 1,
  hexagon: 2,
  cloud: 3,
  heptagon: 4,
  pentagon: 5,
  octagon: 6,
  triangle: 7,
  dottedtriangle: 7,
  cylinder: 8,
  dottedcylinder: 8,
  sheet: 9,
};

/** What the program reads of a node besides position, size and colour. */
export interface NodeLook {
  shapeNumber: number;
  /** Inside of the shape. */
  fill: string;
  /** Colour of the level. */
  heat: string;
  /** 0 to 1; negative for none. */
  level: number;
  stack: boolean;
  /** 0 nothing, 1 thin ring, 2 strong ring. */
  ring: number;
  ringColor: string;
  alpha: number;
}

const FLOAT = 5126;
const UNSIGNED_BYTE = 5121;
const TRIANGLE_STRIP = 5;

// language=GLSL
const VERTEX = /* glsl */ `
attribute vec4 a_color;
attribute vec4 a_fill;
attribute vec4 a_heat;
attribute vec4 a_ringColor;
attribute vec2 a_position;
attribute float a_size;
attribute vec4 a_look;
attribute float a_alpha;
attribute vec2 a_corner;

uniform mat3 u_matrix;
uniform float u_sizeRatio;
uniform float u_correctionRatio;
uniform float u_pixelRatio;

varying vec4 v_color;
varying vec4 v_fill;
varying vec4 v_heat;
varying vec4 v_ringColor;
varying vec4 v_look;
varying vec2 v_point;
varying float v_alpha;
varying float v_pixel;

const float EXTENT = 1.8;

void main() {
  float pixels = a_size / u_sizeRatio;
  float radius = 2.0 * pixels * u_correctionRatio;
  vec2 place = a_position + a_corner * EXTENT * radius;
  gl_Position = vec4((u_matrix * vec3(place, 1.0)).xy, 0.0, 1.0);
  v_point = a_corner * EXTENT;
  v_pixel = 1.0 / max(pixels * u_pixelRatio, 0.5);
  v_look = a_look;
  v_alpha = a_alpha;
  v_fill = a_fill;
  v_heat = a_heat;
  v_ringColor = a_ringColor;
  v_color = a_color;
}
`;

// language=GLSL
const FRAGMENT = /* glsl */ `
precision highp float;

varying vec4 v_color;
varying vec4 v_fill;
varying vec4 v_heat;
varying vec4 v_ringColor;
varying vec4 v_look;
varying vec2 v_point;
varying float v_alpha;
varying float v_pixel;

float roundedBox(vec2 p, vec2 half_, float r) {
  vec2 q = abs(p) - half_ + r;
  return length(max(q, 0.0)) + min(max(q.x, q.y), 0.0) - r;
}

float polygon(vec2 p, float n, float r) {
  float slice = 6.28318530718 / n;
  float a = atan(p.x, p.y);
  float k = floor(0.5 + a / slice) * slice - a;
  return cos(k) * length(p) - r * cos(slice * 0.5);
}

float hexagon(vec2 p, float r) {
  const vec3 k = vec3(-0.866025404, 0.5, 0.577350269);
  p = abs(p.yx);
  p -= 2.0 * min(dot(k.xy, p), 0.0) * k.xy;
  p -= vec2(clamp(p.x, -k.z * r, k.z * r), r);
  return length(p) * sign(p.y);
}

float cloud(vec2 p) {
  p.y += 0.06;
  float d = length(p - vec2(-0.56, -0.18)) - 0.42;
  d = min(d, length(p - vec2(-0.14, 0.2)) - 0.54);
  d = min(d, length(p - vec2(0.42, 0.06)) - 0.44);
  d = min(d, length(p - vec2(0.68, -0.26)) - 0.34);
  return min(d, roundedBox(p - vec2(0.04, -0.25), vec2(0.94, 0.36), 0.34));
}

float shape(vec2 p) {
  float n = v_look.x + 0.5;
  if (n < 1.0) return length(p) - 0.94;
  if (n < 2.0) return roundedBox(p, vec2(0.83), 0.24);
  if (n < 3.0) return hexagon(p, 0.76) - 0.12;
  if (n < 4.0) return cloud(p);
  if (n < 5.0) return polygon(p, 7.0, 1.02);
  if (n < 6.0) return polygon(p, 5.0, 1.06);
  if (n < 7.0) return polygon(p, 8.0, 1.0);
  if (n < 8.0) return polygon(p + vec2(0.0, 0.18), 3.0, 1.2);
  if (n < 9.0) return roundedBox(p, vec2(0.68, 0.92), 0.34);
  return roundedBox(p, vec2(0.7, 0.9), 0.1);
}

vec4 over(vec4 below, vec3 color, float a) {
  return vec4(color * a + below.rgb * (1.0 - a), a + below.a * (1.0 - a));
}

void main() {
  float d = shape(v_point);
  float aa = v_pixel;
  float border = max(0.13, 1.4 * aa);
  float plain = smoothstep(0.2, 0.13, aa);
  vec4 result = vec4(0.0);

  float ring = v_look.w;
  if (ring > 0.5) {
    float width = ring > 1.5 ? max(0.2, 2.5 * aa) : max(0.12, 1.6 * aa);
    float glow = smoothstep(0.62, 0.1, d) * (ring > 1.5 ? 0.28 : 0.12);
    result = over(result, v_ringColor.rgb, glow * step(0.0, d));
    float at = abs(d - 0.2 - width * 0.5) - width * 0.5;
    result = over(result, v_ringColor.rgb, 1.0 - smoothstep(-aa, aa, at));
  }
  if (v_look.z > 0.5) {
    for (int i = 2; i >= 1; i--) {
      float back = shape(v_point - vec2(0.17, 0.17) * float(i));
      float inside = 1.0 - smoothstep(-aa, aa, back);
      float line = 1.0 - smoothstep(-aa, aa, abs(back + border * 0.4) - border * 0.4);
      result = over(result, v_fill.rgb, inside);
      result = over(result, v_color.rgb, line * 0.62);
    }
  }
  float inside = 1.0 - smoothstep(-aa, aa, d);
  vec3 body = mix(v_color.rgb, v_fill.rgb, plain);
  result = over(result, body, inside);
  if (v_look.y >= 0.0) {
    float surface = mix(-0.95, 0.95, v_look.y);
    float wet = inside * (1.0 - smoothstep(-aa, aa, v_point.y - surface));
    result = over(result, v_heat.rgb, wet * 0.92);
  }
  float line = 1.0 - smoothstep(-aa, aa, abs(d + border * 0.5) - border * 0.5);
  result = over(result, v_color.rgb, line);
  gl_FragColor = result * v_alpha;
}
`;

const UNIFORMS = ["u_sizeRatio", "u_correctionRatio", "u_matrix", "u_pixelRatio"] as const;

export class ShapeProgram extends NodeProgram<(typeof UNIFORMS)[number]> {
  /** Without a picking buffer: nodes are found by their positions (see the scene), which costs no second drawing and no wait for the GPU. */
  constructor(gl: WebGL2RenderingContext, _pickingBuffer: WebGLFramebuffer | null, renderer: Sigma) {
    super(gl, null, renderer);
  }

  override getDefinition() {
    const bytes = (name: string) => ({ name, size: 4, type: UNSIGNED_BYTE, normalized: true });
    return {
      VERTICES: 4,
      VERTEX_SHADER_SOURCE: VERTEX,
      FRAGMENT_SHADER_SOURCE: FRAGMENT,
      METHOD: TRIANGLE_STRIP,
      UNIFORMS,
      ATTRIBUTES: [
        { name: "a_position", size: 2, type: FLOAT },
        { name: "a_size", size: 1, type: FLOAT },
        bytes("a_color"),
        bytes("a_fill"),
        bytes("a_heat"),
        bytes("a_ringColor"),
        { name: "a_look", size: 4, type: FLOAT },
        { name: "a_alpha", size: 1, type: FLOAT },
      ],
      CONSTANT_ATTRIBUTES: [{ name: "a_corner", size: 2, type: FLOAT }],
      CONSTANT_DATA: [
        [-1, -1],
        [1, -1],
        [-1, 1],
        [1, 1],
      ],
    };
  }

  override processVisibleItem(_nodeIndex: number, start: number, data: NodeDisplayData & Partial<NodeLook>): void {
    const array = this.array;
    let at = start;
    array[at++] = data.x;
    array[at++] = data.y;
    array[at++] = data.size;
    array[at++] = floatColor(data.color);
    array[at++] = floatColor(data.fill ?? data.color);
    array[at++] = floatColor(data.heat ?? data.color);
    array[at++] = floatColor(data.ringColor ?? data.color);
    array[at++] = data.shapeNumber ?? 0;
    array[at++] = data.level ?? -1;
    array[at++] = data.stack ? 1 : 0;
    array[at++] = data.ring ?? 0;
    array[at++] = data.alpha ?? 1;
  }

  override setUniforms(params: RenderParams, { gl, uniformLocations }: ProgramInfo<(typeof UNIFORMS)[number]>): void {
    gl.uniform1f(uniformLocations.u_sizeRatio, params.sizeRatio);
    gl.uniform1f(uniformLocations.u_correctionRatio, params.correctionRatio);
    gl.uniform1f(uniformLocations.u_pixelRatio, params.pixelRatio);
    gl.uniformMatrix3fv(uniformLocations.u_matrix, false, params.matrix);
  }
}
