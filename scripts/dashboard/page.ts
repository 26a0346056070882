import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import type { Prometheus } from '../operations/prometheus.ts'
import { format, nameOf, type Panel } from './panels.ts'

const UNIT_PX = 38
const GAP_PX = 8
const WIDTH_PX = 1_600
const COLUMN_PX = WIDTH_PX / 24
const PALETTE = ['#73bf69', '#f2cc0c', '#8ab8ff', '#ff780a', '#f2495c', '#5794f2', '#b877d9', '#b7dbab', '#fade2a', '#c4162a']
const COLORS: Record<string, string> = { green: '#73bf69', yellow: '#fade2a', orange: '#ff9830', red: '#f2495c', purple: '#b877d9', blue: '#5794f2', 'light-green': '#b7dbab', 'light-orange': '#ffcb7d', 'light-red': '#ffa6b0', 'light-purple': '#deb6f2' }

interface Line { name: string, color: string, unit: string, right: boolean, values: Array<number | null> }
interface Chart { element: string, width: number, height: number, times: number[], lines: Line[], unit: string, stacked: boolean, fill: number, limits: Array<{ color: string, value: number }> }

const escape = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;')
const asset = (name: string): string => readFileSync(createRequire(import.meta.url).resolve(`uplot/dist/${name}`), 'utf8')

/** One page that shows every panel of the dashboard in its place, with what Prometheus holds for the time. Gives the panels without data, too. */
export async function renderPage (prometheus: Prometheus, panels: readonly Panel[], from: number, to: number, step: number): Promise<{ html: string, empty: string[], height: number }> {
  const charts: Chart[] = []
  const empty: string[] = []
  const boxes: string[] = []
  let height = 0
  for (const [index, panel] of panels.entries()) {
    const { x, y, w, h } = panel.gridPos
    const [left, top, width, tall] = [x * COLUMN_PX + GAP_PX / 2, y * UNIT_PX + GAP_PX / 2, w * COLUMN_PX - GAP_PX, h * UNIT_PX - GAP_PX]
    height = Math.max(height, top + tall + GAP_PX)
    const style = `left:${left}px;top:${top}px;width:${width}px;height:${tall}px`
    if (panel.type === 'row') {
      boxes.push(`<h2 style="${style}">${escape(panel.title)}</h2>`)
      continue
    }
    const lines = await readLines(prometheus, panel, from, to, step)
    const filled = lines.filter(({ values }) => values.some(value => value !== null))
    if (filled.length === 0) empty.push(panel.title)
    const head = `<h3>${escape(panel.title)}</h3>`
    if (panel.type === 'table') {
      boxes.push(`<section style="${style}">${head}<table>${filled.map(({ name, values }) => `<tr><td>${escape(name)}</td><td>${values.at(-1) ?? ''}</td></tr>`).join('')}</table></section>`)
    } else if (panel.type === 'stat') {
      const last = filled[0]?.values.findLast(value => value !== null)
      const color = panel.thresholds.findLast(({ value }) => value === null || (last ?? 0) >= value)?.color ?? 'blue'
      boxes.push(`<section style="${style}">${head}<p class="stat" style="color:${COLORS[color] ?? color}">${last === undefined ? escape(panel.noValue) : format(last, panel.unit, panel.decimals)}</p></section>`)
    } else {
      const legend = filled.map(({ name, color, unit, values }) => `<span><i style="background:${color}"></i>${escape(name)} <b>${format(values.findLast(value => value !== null), unit)}</b></span>`).join('')
      boxes.push(`<section style="${style}">${head}<div id="chart${index}">${filled.length === 0 ? `<p class="none">${escape(panel.noValue)}</p>` : ''}</div><div class="legend">${legend}</div></section>`)
      if (filled.length > 0) {
        charts.push({
          element: `chart${index}`,
          width: width - 12,
          height: tall - 30 - 16 * legendRows(filled.map(({ name }) => name), width),
          times: Array.from({ length: Math.floor((to - from) / step) + 1 }, (_, at) => at * step),
          lines: filled,
          unit: panel.unit,
          stacked: panel.stacked,
          fill: panel.fill,
          limits: panel.showThresholds ? panel.thresholds.flatMap(({ color, value }) => value === null ? [] : [{ color: COLORS[color] ?? color, value }]) : []
        })
      }
    }
  }
  return { html: page(boxes, charts, height), empty, height: Math.ceil(height) }
}

async function readLines (prometheus: Prometheus, { targets, overrides, unit }: Panel, from: number, to: number, step: number): Promise<Line[]> {
  const lines: Line[] = []
  for (const { expr, legendFormat } of targets) {
    for (const { metric, values } of await prometheus.range(expr, from, to, step)) {
      const name = nameOf(legendFormat, metric)
      const override = overrides.find(({ matches }) => matches(name))
      const at = new Map(values.map(([second, value]) => [Math.round((second - from) / step), Number(value)]))
      lines.push({
        name,
        color: COLORS[override?.color ?? ''] ?? override?.color ?? PALETTE[lines.length % PALETTE.length] ?? '#fff',
        unit: override?.unit ?? unit,
        right: override?.right ?? false,
        values: Array.from({ length: Math.floor((to - from) / step) + 1 }, (_, index) => { const value = at.get(index); return value === undefined || !Number.isFinite(value) ? null : value })
      })
    }
  }
  return lines
}

/** Rows that a legend takes, entry after entry. */
function legendRows (names: string[], width: number): number {
  let [rows, used] = [1, 0]
  for (const name of names) {
    const entry = name.length * 6.1 + 84
    if (used > 0 && used + entry > width) [rows, used] = [rows + 1, 0]
    used += entry
  }
  return rows
}

function page (boxes: string[], charts: Chart[], height: number): string {
  return `<!doctype html><meta charset="utf-8"><title>Viewing Service</title><style>${asset('uPlot.min.css')}
body{margin:0;background:#111217;color:#ccccdc;font:12px/1.3 DejaVu Sans,sans-serif}main{position:relative;width:${WIDTH_PX}px;height:${height}px}
h2,section{position:absolute;box-sizing:border-box;margin:0}h2{font-size:15px;line-height:30px;color:#fff}
section{background:#181b1f;border:1px solid #2c3036;border-radius:2px;padding:4px;overflow:hidden}h3{margin:0;font-size:12px;font-weight:600;line-height:18px}
.stat{margin:0;font-size:34px;text-align:center;line-height:${3.4 * UNIT_PX}px}.none{text-align:center;color:#7b8087;margin:24px}
.legend{position:absolute;left:6px;right:4px;bottom:3px;font-size:10px;line-height:16px;max-height:90px;overflow:hidden}.legend span{margin-right:10px;white-space:nowrap;display:inline-block}.legend i{display:inline-block;width:10px;height:3px;margin:0 4px 3px 0}
table{font-size:11px}td{padding:0 12px 0 0}</style><main>${boxes.join('')}</main>
<script>${asset('uPlot.iife.min.js')}</script><script>
const format = ${format.toString()}
for (const chart of ${JSON.stringify(charts)}) {
  let stack = chart.times.map(() => 0)
  const values = chart.lines.map(line => chart.stacked ? stack = stack.map((sum, at) => sum + (line.values[at] ?? 0)) : line.values)
  const order = chart.lines.map((_, at) => at)
  // The whole stack first, so that what is below is drawn over it.
  if (chart.stacked) order.reverse()
  const rightUnit = chart.lines.find(line => line.right)?.unit
  const axis = { stroke: '#9a9fa8', grid: { stroke: '#24282e', width: 1 }, ticks: { show: false }, font: '10px DejaVu Sans', size: 58, space: 26 }
  const highest = scale => (plot, min, max) => [0, max > 0 ? max * 1.08 : 1]
  new uPlot({
    width: chart.width, height: chart.height, legend: { show: false }, cursor: { show: false }, padding: [6, 6, 0, 0],
    scales: { x: { time: false }, y: { range: highest('y') }, right: { range: highest('right') } },
    axes: [
      { ...axis, size: 18, space: 50, incrs: [10, 15, 30, 60, 120, 300, 600], values: (plot, ticks) => ticks.map(tick => Math.floor(tick / 60) + ':' + String(tick % 60).padStart(2, '0')) },
      { ...axis, values: (plot, ticks) => ticks.map(tick => format(tick, chart.unit)) },
      ...(rightUnit === undefined ? [] : [{ ...axis, side: 1, scale: 'right', grid: { show: false }, values: (plot, ticks) => ticks.map(tick => format(tick, rightUnit)) }])
    ],
    series: [{}, ...order.map(at => ({ stroke: chart.lines[at].color, width: 1.5, scale: chart.lines[at].right ? 'right' : 'y', points: { show: false }, spanGaps: false, fill: chart.lines[at].color + Math.round((chart.stacked ? 0.75 : chart.fill) * 255).toString(16).padStart(2, '0') }))],
    hooks: { draw: [plot => {
      for (const { color, value } of chart.limits) {
        const y = plot.valToPos(value, 'y', true)
        if (y < plot.bbox.top) continue
        Object.assign(plot.ctx, { strokeStyle: color, lineWidth: 1 })
        plot.ctx.setLineDash([6, 4])
        plot.ctx.beginPath(); plot.ctx.moveTo(plot.bbox.left, y); plot.ctx.lineTo(plot.bbox.left + plot.bbox.width, y); plot.ctx.stroke()
        plot.ctx.setLineDash([])
      }
    }] }
  }, [chart.times, ...order.map(at => values[at])], document.getElementById(chart.element))
}
</script>`
}
