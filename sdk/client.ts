import createClient from 'openapi-fetch'
import type { paths } from './schema.d.ts'

/** A typed client of the service. `token`: an access token for starts and slots, or a playback token for one session. */
export function createViewingClient (baseUrl: string, token?: string) {
  return createClient<paths>({ baseUrl, ...(token === undefined ? {} : { headers: { authorization: `Bearer ${token}` } }) })
}
