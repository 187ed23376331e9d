// Package webhook tells others of the status changes of tasks, by posting them
// to URLs that callers have registered, signed as Standard Webhooks has it.
//
// What is sent comes from the log of events alone. One cursor, shared by all
// servers, moves over the log in the order that never hides an event behind one
// that was read; the transaction that moves it on queues a delivery for each
// webhook that the passed events concern. So an event is queued once, whichever
// servers are killed. A delivery is claimed under a lease, posted, and its
// outcome recorded: a server that is killed in between leaves it to be posted
// again, with the same id. It arrives at least once, and in no particular order.
package webhook
