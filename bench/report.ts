import { cpus } from 'node:os'

/** Figures as a table, as JSON and as one HTML page that needs nothing from elsewhere. */

export interface Row {
  name: string
  /** Server CPU per heartbeat, token or request, µs. */
  cpu: number
  /** `cpu` by the floor's of the same round, median of the rounds. */
  ofFloor: number
  /** The lowest `cpu` of all rounds by the floor's lowest. What else the machine does only adds. */
  lowest: number
  redis: number
  /** CPU µs per heartbeat, token or request of all else on the machine: the generator, the stub of the upstream services, whoever else is there. */
  others: number
  /** Part of the machine's CPU time that nobody took, %. */
  idle: number
  perSecond: number
  p50: number
  p95: number
  p99: number
  rss: number
  errors: number
}
export interface Curve { load: number, name: string, perSecond: number, p50: number, p95: number, p99: number, cpu: number }
export interface Report { machine: Record<string, string>, rows: Row[], curves: Curve[] }

const HEADS: Record<keyof Row, string> = { name: '', cpu: 'CPU µs', ofFloor: 'of floor', lowest: 'lowest', redis: 'Redis µs', others: 'others µs', idle: 'idle %', perSecond: '1/s', p50: 'p50 ms', p95: 'p95 ms', p99: 'p99 ms', rss: 'RSS MiB', errors: 'errors' }
const COLUMNS = Object.keys(HEADS).filter((key): key is keyof Row => key in HEADS)

const digits = (key: keyof Row, value: number | string): string => typeof value === 'string' ? value : value.toFixed(key === 'perSecond' || key === 'errors' || key === 'rss' || key === 'idle' ? 0 : 2)

export function machine (generator: string, redisVersion: string): Record<string, string> {
  return { processor: `${cpus().length} × ${cpus()[0]?.model ?? 'unknown'}`, system: `${process.platform} ${process.arch}`, node: process.version, redis: redisVersion, generator }
}

export function table ({ rows, curves, machine }: Report): string {
  const line = (cells: string[]): string => cells.map((cell, at) => at === 0 ? cell.padEnd(38) : cell.padStart(10)).join('')
  return [
    Object.entries(machine).map(([key, value]) => `${key}: ${value}`).join(' · '),
    line(COLUMNS.map(key => HEADS[key])),
    ...rows.map(row => line(COLUMNS.map(key => digits(key, row[key])))),
    ...(curves.length === 0 ? [] : ['', 'at a given rate']),
    ...curves.map(({ name, load, perSecond, p50, p95, p99, cpu }) => line([`${name} at ${Math.round(load * 100)} %`, cpu.toFixed(2), '', '', '', '', '', perSecond.toFixed(0), p50.toFixed(2), p95.toFixed(2), p99.toFixed(2)]))
  ].join('\n')
}

const escaped = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;')

export function html (report: Report): string {
  const { rows, curves, machine } = report
  return `<!doctype html><html lang="en"><meta charset="utf-8"><title>Viewing Service: benchmark</title>
<style>body{font:14px system-ui;max-width:1000px;margin:2rem auto;color:#222}table{border-collapse:collapse;width:100%}td,th{padding:.3em .6em;text-align:right;border-bottom:1px solid #ddd}td:first-child,th:first-child{text-align:left}svg{width:100%;height:auto}text{font:12px system-ui}</style>
<h1>Benchmark</h1><p>${Object.entries(machine).map(([key, value]) => `${escaped(key)}: ${escaped(value)}`).join(' · ')}</p>
<table><tr>${COLUMNS.map(key => `<th>${HEADS[key]}</th>`).join('')}</tr>${rows.map(row => `<tr>${COLUMNS.map(key => `<td>${escaped(digits(key, row[key]))}</td>`).join('')}</tr>`).join('')}</table>
<h2>CPU per heartbeat, token or request, µs: service and Redis</h2>${bars(rows)}
${curves.length === 0 ? '' : `<h2>p95 against load, ms</h2>${lines(curves)}`}</html>
`
}

function bars (rows: readonly Row[]): string {
  const most = Math.max(...rows.map(({ cpu, redis }) => cpu + redis))
  const scale = (value: number): number => value / most * 560
  return `<svg viewBox="0 0 960 ${rows.length * 26}">${rows.map(({ name, cpu, redis }, at) => `<text x="270" y="${at * 26 + 17}" text-anchor="end">${escaped(name)}</text>` +
    `<rect x="280" y="${at * 26 + 4}" width="${scale(cpu)}" height="18" fill="#2a6fb0"/><rect x="${280 + scale(cpu)}" y="${at * 26 + 4}" width="${scale(redis)}" height="18" fill="#c0504d"/>` +
    `<text x="${290 + scale(cpu + redis)}" y="${at * 26 + 17}">${cpu.toFixed(1)} + ${redis.toFixed(1)}</text>`).join('')}</svg>`
}

function lines (curves: readonly Curve[]): string {
  const most = Math.max(...curves.map(({ p95 }) => p95))
  const names = [...new Set(curves.map(({ name }) => name))]
  const colours = ['#2a6fb0', '#c0504d', '#5a9a3c', '#8064a2', '#d08a2e']
  const point = ({ load, p95 }: Curve): [number, number] => [60 + load * 800, 260 - p95 / most * 230]
  return `<svg viewBox="0 0 960 300"><line x1="60" y1="260" x2="900" y2="260" stroke="#888"/><text x="60" y="285">load, part of the highest throughput</text><text x="5" y="35">${most.toFixed(1)} ms</text>` +
    names.map((name, at) => {
      const own = curves.filter(curve => curve.name === name).sort((a, b) => a.load - b.load)
      const colour = colours[at % colours.length]
      return `<polyline fill="none" stroke="${colour}" stroke-width="2" points="${own.map(curve => point(curve).join(',')).join(' ')}"/>` +
        own.map(curve => `<circle cx="${point(curve)[0]}" cy="${point(curve)[1]}" r="4" fill="${colour}"/>`).join('') + `<text x="640" y="${30 + at * 18}" fill="${colour}">${escaped(name)}</text>`
    }).join('') + '</svg>'
}

/** What builds are compared by, and with which generator it was measured: a slower one makes for smaller batches. */
export interface Baseline { generator: string, ofFloor: Record<string, number> }

/**
 * The more favourable of two ratios to the floor, rounds taken one by one and the lowest of all rounds: a busy machine makes now the one
 * worse and now the other, a dearer request both.
 */
const ratio = ({ ofFloor, lowest }: Row): number => Math.min(ofFloor, lowest)

/** The baseline with these rows in it. Of several runs the highest ratio stays: what the machine alone is able to make of the same build. */
export function withRows ({ generator, ofFloor }: Baseline, rows: readonly Row[]): Baseline {
  const added = rows.filter(({ name }) => name !== 'floor').map(row => [row.name, Number(Math.max(ofFloor[row.name] ?? 0, ratio(row)).toFixed(2))])
  return { generator, ofFloor: { ...ofFloor, ...Object.fromEntries(added) } }
}

/** Scenarios that cost more than 15 % more of the floor than the baseline says. @throws Error when nothing can be compared. */
export function regressions (rows: readonly Row[], { ofFloor }: Baseline): string[] {
  const compared = rows.filter(({ name }) => name !== 'floor' && ofFloor[name] !== undefined)
  if (compared.length === 0) throw new Error('none of the scenarios is in the baseline')
  return compared.filter(row => ratio(row) > (ofFloor[row.name] ?? 0) * 1.15)
    .map(row => `${row.name}: ${ratio(row).toFixed(2)} of the floor, ${(ofFloor[row.name] ?? 0).toFixed(2)} in the baseline`)
}
