package keeper

import "sync"

// newsAhead is how many pieces of news wait ready to be taken at once, by one who decides
// on several together.
const newsAhead = 128

// An eventQueue takes news at any rate and gives it to a reader at his.
type eventQueue struct {
	mu   sync.Mutex
	more *sync.Cond
	list []Event
	end  bool

	moving bool // the first of them has left the list and has not arrived
}

func (q *eventQueue) init() { q.more = sync.NewCond(&q.mu) }

// put gives news to who reads, at once if there is room and nothing before it waits.
func (q *eventQueue) put(ev Event, to chan<- Event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.list) == 0 && !q.moving {
		select {
		case to <- ev:
			return
		default:
		}
	}
	q.list = append(q.list, ev)
	q.more.Signal()
}

func (q *eventQueue) deliver(to chan<- Event, gone <-chan struct{}) {
	go func() {
		<-gone
		q.mu.Lock()
		q.end = true
		q.more.Signal()
		q.mu.Unlock()
	}()
	for {
		q.mu.Lock()
		q.moving = false
		for len(q.list) == 0 && !q.end {
			q.more.Wait()
		}
		if q.end {
			q.mu.Unlock()
			return
		}
		ev := q.list[0]
		q.list, q.moving = q.list[1:], true
		q.mu.Unlock()
		select {
		case to <- ev:
		case <-gone:
			return
		}
	}
}
