import { once } from 'node:events'
import { createServer } from 'node:http'
import { STUB_REGION_REASON, STUB_TITLES, STUB_USERS } from './stub-data.ts'

export interface StubServices {
  identityUrl: string
  contentUrl: string
  /** One line for the log. */
  description: string
  close: () => Promise<void>
}

interface Answer { status: number, body: Record<string, unknown> }

const HOST = '127.0.0.1'

/** Starts stand-ins for the identity and the content service, one HTTP server on a free loopback port, that answer from `stub-data.ts`. */
export async function startStubServices (): Promise<StubServices> {
  const server = createServer((request, response) => {
    const { status, body } = request.method === 'GET' ? answer(request.url ?? '/') : { status: 405, body: { error: 'only GET' } }
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
  })
  server.listen(0, HOST)
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('the stub services have no port')
  const url = `http://${HOST}:${address.port}`
  return {
    identityUrl: url,
    contentUrl: url,
    description: `stub identity and content services on ${url}`,
    close: async () => {
      if (!server.listening) return
      server.close()
      server.closeAllConnections()
      await once(server, 'close')
    }
  }
}

function answer (target: string): Answer {
  const url = URL.parse(`http://${HOST}${target}`)
  if (url === null) return { status: 400, body: { error: 'malformed target' } }
  const { pathname, searchParams } = url
  if (pathname === '/api/entitlement/validate') return entitlement(searchParams)
  if (pathname === '/api/content/availability') return availability(searchParams)
  return { status: 404, body: { error: 'no such resource' } }
}

function entitlement (query: URLSearchParams): Answer {
  const userId = query.get('userID')
  if (userId === null || !query.has('profileID') || !query.has('contentID')) return { status: 400, body: { error: 'userID, profileID and contentID are required' } }
  const user = STUB_USERS.find(candidate => candidate.userId === userId)
  return { status: 200, body: { entitled: user?.entitled ?? true, max_streams: user?.maxStreams, reason: user?.reason } }
}

function availability (query: URLSearchParams): Answer {
  const contentId = query.get('contentID')
  const region = query.get('region')
  if (contentId === null || region === null) return { status: 400, body: { error: 'contentID and region are required' } }
  const title = STUB_TITLES.find(candidate => candidate.contentId === contentId)
  const reason = title?.blocked ?? (title?.regions?.includes(region) === false ? STUB_REGION_REASON : undefined)
  return { status: 200, body: { available: reason === undefined, reason } }
}
