import { ecsFormat } from '@elastic/ecs-pino-format'
import { type DestinationStream, type LoggerOptions, pino } from 'pino'
import type { Config } from './config.ts'

/** Credentials never reach a line, whoever logs the request. An error of Redis holds its command, and AUTH's arguments are the password. */
const REDACT = [
  'req.headers.authorization', 'req.headers["x-gateway-secret"]', 'req.headers.cookie', '*.playback_token', '*.token', '*.tokens',
  'err.command.args', 'err.*.command.args'
]

/**
 * The service's own log. `auto` writes for people on a terminal and JSON elsewhere. URLs are cut at the query and user ids in paths
 * are masked, so no line at `info` names a user.
 */
export function createLogger (log: Config['log'], terminal: boolean, destination?: DestinationStream) {
  const format = log.format === 'auto' ? (terminal ? 'pretty' : 'json') : log.format
  const options: LoggerOptions = {
    ...(format === 'ecs' ? ecsFormat() : {}),
    level: log.level,
    redact: REDACT,
    serializers: {
      req: (request: { method: string, url: string, id?: string }) => ({ method: request.method, url: maskPath(request.url), id: request.id }),
      res: (reply: { statusCode: number }) => ({ statusCode: reply.statusCode })
    }
  }
  if (format === 'pretty') return pino({ ...options, transport: { target: 'pino-pretty', options: { ignore: 'pid,hostname', translateTime: 'HH:MM:ss' } } })
  return destination === undefined ? pino(options) : pino(options, destination)
}

/** The path without its query, and without the user id where there is one. */
export function maskPath (url: string): string {
  return (url.split('?', 1)[0] ?? '').replace(/(\/concurrency\/)[^/]+/, '$1*')
}
