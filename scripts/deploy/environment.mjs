import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { ConfigError, loadConfig } from '../../src/config.ts'
import { SettingsSchema } from '../../src/config/settings.ts'
import { check } from './verdict.mjs'

export const ROOT = new URL('../..', import.meta.url).pathname
export const read = path => readFileSync(`${ROOT}${path}`, 'utf8')
export const isSetting = name => name in SettingsSchema.properties
export const isSecretSetting = name => SettingsSchema.properties[name].secret === true

/** The environment as the process would get it; keys it was promised by a Secret that only the cluster knows are made up. */
export function accepted (env, where) {
  const key = () => randomBytes(48).toString('base64')
  const secrets = { JWT_SECRET: key(), ...(env.AUTH_MODE === 'gateway' ? { AUTH_GATEWAY_SECRET: key() } : {}) }
  try {
    loadConfig({ ...(env.NODE_ENV === 'production' ? secrets : {}), ...env })
    check(true, where)
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    check(false, `${where}: the service would refuse its environment: ${error.problems.join('; ')}`)
  }
}
