import { ecsFormat } from '@elastic/ecs-pino-format'
import { type FastifyBaseLogger, type FastifyReply, type FastifyRequest, LogController } from 'fastify'
import { type Bindings, type ChildLoggerOptions, type DestinationStream, type LoggerOptions, pino } from 'pino'
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
    ...(format === 'ecs' ? ecs() : {}),
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

/** Elastic Common Schema, a request's method, path, status and time too. The library's own conversion of requests would log queries and headers. */
function ecs (): LoggerOptions {
  const { formatters, ...options } = ecsFormat({ serviceName: 'viewing-service' })
  return {
    ...options,
    formatters: {
      ...formatters,
      log: fields => {
        const { req, res, responseTime, ...rest }: { req?: { method: string, url: string }, res?: { statusCode: number }, responseTime?: number } = fields
        return {
          ...(formatters?.log?.(rest) ?? rest),
          ...(req === undefined ? {} : { 'http.request.method': req.method, 'url.path': maskPath(req.url) }),
          ...(res === undefined ? {} : { 'http.response.status_code': res.statusCode }),
          // Nanoseconds, as the schema has it.
          ...(responseTime === undefined ? {} : { 'event.duration': Math.round(responseTime * 1e6) })
        }
      }
    }
  }
}

/** The path without its query, and without the user id where there is one. */
export function maskPath (url: string): string {
  return (url.split('?', 1)[0] ?? '').replace(/(\/concurrency\/)[^/]+/, '$1*')
}

/** For the line of an answer alone: our own members of known content, so nothing has to be looked for in it (a third of the line's cost). */
const answers = new WeakMap<FastifyBaseLogger, FastifyBaseLogger>()

/**
 * The logger of one request, made when it says something for the first time: most requests say nothing, and pino builds every method
 * of a child anew when a route has a level of its own (10 % of a heartbeat).
 */
export function requestLogger (format: Config['log']['format']) {
  return (parent: FastifyBaseLogger, bindings: Bindings, options: ChildLoggerOptions): FastifyBaseLogger =>
    new RequestLogger(parent, format === 'ecs' ? { 'http.request.id': bindings.reqId } : bindings, options)
}

type Rest = [text?: string, ...values: unknown[]]

class RequestLogger implements FastifyBaseLogger {
  readonly #parent: FastifyBaseLogger
  readonly #bindings: Bindings
  readonly #options: ChildLoggerOptions
  #made: FastifyBaseLogger | undefined

  constructor (parent: FastifyBaseLogger, bindings: Bindings, options: ChildLoggerOptions) {
    this.#parent = parent
    this.#bindings = bindings
    this.#options = options
  }

  /** Of a route that only logs what goes wrong: a line per heartbeat costs as much as the heartbeat. */
  get quiet (): boolean {
    return this.#options.level === 'warn'
  }

  get #log (): FastifyBaseLogger {
    this.#made ??= this.#parent.child(this.#bindings, this.#options)
    return this.#made
  }

  answered (details: { req: FastifyRequest, res: FastifyReply, responseTime: number }): void {
    let log = answers.get(this.#parent)
    if (log === undefined) {
      log = this.#parent.child({}, { redact: [] })
      answers.set(this.#parent, log)
    }
    log.info({ ...this.#bindings, ...details }, 'request completed')
  }

  get level () { return this.#log.level }
  set level (level) { this.#log.level = level }
  // Methods, not getters: Fastify looks at each of them for every request.
  fatal (details: unknown, ...rest: Rest): void { this.#log.fatal(details, ...rest) }
  error (details: unknown, ...rest: Rest): void { this.#log.error(details, ...rest) }
  warn (details: unknown, ...rest: Rest): void { this.#log.warn(details, ...rest) }
  info (details: unknown, ...rest: Rest): void { this.#log.info(details, ...rest) }
  debug (details: unknown, ...rest: Rest): void { this.#log.debug(details, ...rest) }
  trace (details: unknown, ...rest: Rest): void { this.#log.trace(details, ...rest) }
  silent (details: unknown, ...rest: Rest): void { this.#log.silent(details, ...rest) }
  child (bindings: Bindings, options?: ChildLoggerOptions): FastifyBaseLogger { return this.#log.child(bindings, options) }
}

/** One line per request, when it is answered; none on quiet routes. */
export class RequestLog extends LogController {
  override isLogDisabled ({ log }: FastifyRequest): boolean {
    return log instanceof RequestLogger && log.quiet
  }

  override incomingRequest (): void { /* what came is in the line of the answer */ }

  override requestCompleted (...[error, request, reply]: Parameters<LogController['requestCompleted']>): void {
    const { log } = request
    if (this.isLogDisabled(request)) return
    const details = { req: request, res: reply, responseTime: reply.elapsedTime }
    if (error) log.error({ ...details, err: error }, 'request errored')
    else if (log instanceof RequestLogger) log.answered(details)
    else log.info(details, 'request completed')
  }
}
