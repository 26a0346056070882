import type { TSchema } from '@sinclair/typebox'
import { SettingsSchema } from '../src/config/settings.ts'

/** The parts of the chart's values.schema.json that say what each variable may be: `config` for what is no secret, `secret.values` for the rest. */

const DURATION = '^$|^([0-9]{1,12}(ms|s|m|h|d))+$'
/** What a cluster needs otherwise: an unprivileged, known port; a delay that the grace period can be computed from; these two said, not left out. */
const NARROWER: Record<string, object> = {
  NODE_ENV: { enum: SettingsSchema.properties.NODE_ENV.enum },
  PORT: { type: 'integer', minimum: 1024, maximum: 65_535 },
  SHUTDOWN_DELAY: { type: 'string', pattern: '^[1-9][0-9]{0,2}s$' },
  AUTH_MODE: { enum: ['jwt', 'gateway', 'none'] }
}

/** Also what may hold a password: any URL but those of HTTP. */
const isSecret = (schema: TSchema): boolean => schema.secret === true || /^\^\((?!https?\b)[a-z|]+\):\/\//.test(String(schema.pattern))

/** Empty means unset, so that a values file can take back what another one sets. */
function plain (schema: TSchema): object {
  if (schema.unit === 'duration') return { type: 'string', pattern: DURATION }
  if (Array.isArray(schema.enum)) return { enum: ['', ...schema.enum] }
  switch (schema.type) {
    case 'integer': return { anyOf: [{ type: 'integer', minimum: schema.minimum, maximum: schema.maximum }, { const: '' }] }
    case 'boolean': return { anyOf: [{ type: 'boolean' }, { const: '' }] }
    case 'array': return { type: 'string', pattern: '^$|^[^\\s,]+(,[^\\s,]+)*$' }
    case 'string': return {
      type: 'string',
      ...(schema.pattern === undefined ? {} : { pattern: `^$|${schema.pattern}` }),
      ...(schema.maxLength === undefined ? {} : { maxLength: schema.maxLength })
    }
  }
  throw new TypeError(`values.schema.json has no form for ${JSON.stringify(schema)}`)
}

const secret = (schema: TSchema): object => ({
  type: 'string',
  minLength: 1,
  maxLength: schema.maxLength,
  ...(schema.pattern === undefined ? {} : { pattern: schema.pattern })
})

/** The text of values.schema.json with both parts as the settings have them; the rest as it is. */
export function withSettings (text: string): string {
  const schema: { properties: Record<'config' | 'secret', { properties: Record<string, object> }> } = JSON.parse(text)
  const all = Object.entries<TSchema>(SettingsSchema.properties)
  const part = (wanted: boolean, form: (schema: TSchema) => object) => Object.fromEntries(all
    .filter(([, setting]) => isSecret(setting) === wanted)
    .map(([name, setting]) => [name, { ...(NARROWER[name] ?? form(setting)), description: setting.description }]))
  schema.properties.config.properties = part(false, plain)
  schema.properties.secret.properties.values = { ...schema.properties.secret.properties.values, ...{ properties: part(true, secret) } }
  return `${JSON.stringify(schema, null, 2)}\n`
}
