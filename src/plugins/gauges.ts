import fp from 'fastify-plugin'

/** What is read from the running parts when metrics are scraped. */
export default fp(async function gauges ({ measure, store, reaper, outboxLevel }) {
  measure.gauge('viewing_redis_connections', 'Open connections to Redis.', () => store.connections())
  measure.gauge('viewing_redis_up', 'Whether all Redis masters answered at the last look.', () => Number(store.state().reachable))
  measure.gauge('viewing_redis_evicting', 'Whether a Redis master may evict sessions.', () => Number(store.state().evicting !== undefined))
  measure.gauge('viewing_admission_replicated', 'Whether a start waits for a replica.', () => Number(store.admission.durability === 'replicated'))
  measure.gauge('viewing_grace_groups', 'Groups of slots (of 64) in which nobody is ended for silence, after an outage of ours.', () => store.pulse.groupsInGrace())
  measure.gauge('viewing_reaper_holding', 'Whether the reaper waits because too many sessions look dead at once.', () => Number(reaper.holding))
  measure.gauge('viewing_outbox_events', 'Events waiting in the outboxes of the slots this instance swept last.', () => outboxLevel().events)
  measure.gauge('viewing_outbox_bytes', 'Memory of those outboxes, bytes.', () => outboxLevel().bytes)
}, { name: 'gauges', dependencies: ['metrics', 'redis', 'lifecycle'] })
