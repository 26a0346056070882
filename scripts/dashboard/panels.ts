import { readFileSync } from 'node:fs'

/** What is used of the dashboard's JSON (Grafana's model). */
export interface Panel {
  title: string
  type: 'row' | 'stat' | 'timeseries' | 'table'
  gridPos: { x: number, y: number, w: number, h: number }
  targets: Array<{ expr: string, legendFormat: string }>
  unit: string
  decimals: number | undefined
  noValue: string
  stacked: boolean
  fill: number
  /** Limits that are drawn, or that colour a number. */
  thresholds: Array<{ color: string, value: number | null }>
  showThresholds: boolean
  overrides: Array<{ matches: (name: string) => boolean, color?: string, unit?: string, right: boolean }>
}

const DASHBOARD = new URL('../../deploy/grafana/viewing-service.json', import.meta.url)

/** The panels with the dashboard's variables filled in: all jobs, all instances. */
export function readPanels ({ rateSeconds, heartbeatSeconds }: { rateSeconds: number, heartbeatSeconds: number }): Panel[] {
  const dashboard = JSON.parse(readFileSync(DASHBOARD, 'utf8'))
  const fill = (expr: string): string => expr
    .replaceAll('$__rate_interval', `${rateSeconds}s`)
    .replaceAll('$heartbeat_interval', String(heartbeatSeconds))
    .replaceAll(/"\$(job|instance)"/g, '".*"')
  return dashboard.panels.map((panel: Record<string, unknown>): Panel => {
    const { defaults = {}, overrides = [] } = Object(panel.fieldConfig)
    const { custom = {} } = defaults
    return {
      title: String(panel.title),
      type: panel.type as Panel['type'],
      gridPos: panel.gridPos as Panel['gridPos'],
      targets: (Array.isArray(panel.targets) ? panel.targets : []).map(({ expr, legendFormat = '' }) => ({ expr: fill(expr), legendFormat })),
      unit: defaults.unit ?? 'short',
      decimals: defaults.decimals,
      noValue: defaults.noValue ?? 'no data',
      stacked: custom.stacking?.mode === 'normal',
      fill: (custom.fillOpacity ?? 0) / 100,
      thresholds: defaults.thresholds?.steps ?? [],
      showThresholds: custom.thresholdsStyle?.mode === 'dashed',
      overrides: overrides.map(({ matcher, properties }: { matcher: { id: string, options: string }, properties: Array<{ id: string, value: unknown }> }) => {
        const value = (id: string): unknown => properties.find(property => property.id === id)?.value
        const color: unknown = Object(value('color')).fixedColor
        const unit = value('unit')
        const pattern = new RegExp(matcher.options.replace(/^\/(.*)\/$/, '$1'))
        return {
          matches: (name: string) => matcher.id === 'byName' ? name === matcher.options : pattern.test(name),
          ...(typeof color === 'string' ? { color } : {}),
          ...(typeof unit === 'string' ? { unit } : {}),
          right: value('custom.axisPlacement') === 'right'
        }
      })
    }
  })
}

/** A series' name as the legend has it. */
export function nameOf (legendFormat: string, labels: Record<string, string>): string {
  return legendFormat === '' ? Object.values(labels).join(' ') || 'value' : legendFormat.replaceAll(/\{\{\s*(\w+)\s*\}\}/g, (_, label: string) => labels[label] ?? '')
}

/** A number as people read it. */
export function format (value: number | null | undefined, unit: string, decimals?: number): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return '–'
  const short = (number: number): string => decimals !== undefined ? number.toFixed(decimals) : Number(number.toPrecision(3)).toString()
  const scaled = (base: number, units: string[]): string => {
    const power = value === 0 ? 0 : Math.min(units.length - 1, Math.max(0, Math.floor(Math.log(Math.abs(value)) / Math.log(base))))
    return `${short(value / base ** power)}${units[power] ?? ''}`
  }
  switch (unit) {
    case 'percentunit': return `${short(value * 100)}%`
    case 's': return value !== 0 && Math.abs(value) < 1 ? `${short(value * 1_000)} ms` : `${short(value)} s`
    case 'bytes': return scaled(1_024, [' B', ' KiB', ' MiB', ' GiB'])
    case 'reqps': return `${scaled(1_000, ['', 'K', 'M'])} req/s`
    case 'ops': return `${scaled(1_000, ['', 'K', 'M'])}/s`
    default: return scaled(1_000, ['', 'K', 'M'])
  }
}
