#!lua flags=no-writes
-- How many events wait in outboxes. One call for many slots: while Kafka is away a sweep asks for thousands that hold some, and a
-- command for each was three quarters of the garbage of an outage.
--
-- KEYS    outbox:{tag} of each   stream
--
-- Replies: the number of entries of each, 0 where there is none.

local lengths = {}
for i = 1, #KEYS do lengths[i] = redis.call('XLEN', KEYS[i]) end
return lengths
