package shared

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

const groupPartitions = 6

// member runs Client.Consume until it is stopped.
type member struct {
	cancel context.CancelFunc
	done   chan error
}

func (s *Suite) join(ctx context.Context, topic string, handle func(Record) bool) *member {
	ctx, cancel := context.WithCancel(ctx)
	m := &member{cancel, make(chan error, 1)}
	go func() { m.done <- s.Client.Consume(ctx, topic, topic+"-group", handle) }()
	return m
}

// stop makes the member leave the group, and returns when it has.
func (m *member) stop() error {
	m.cancel()
	select {
	case err := <-m.done:
		return err
	case <-time.After(waitLimit):
		return errors.New("a member does not end")
	}
}

// failed is the error of a member that ended by itself.
func (m *member) failed() error {
	select {
	case err := <-m.done:
		m.done <- err
		return fmt.Errorf("a member ended by itself: %w", err)
	default:
		return nil
	}
}

// crowd is what the members of a group did.
type crowd struct {
	mutex    sync.Mutex
	consumed map[string]bool
	// owned is who read which partitions since the last change.
	owned   map[string]map[int]bool
	members map[string]*member
}

func (c *crowd) handler(name string) func(Record) bool {
	return func(record Record) bool {
		c.mutex.Lock()
		defer c.mutex.Unlock()
		c.consumed[string(record.Value)] = true
		if c.owned[name] == nil {
			c.owned[name] = map[int]bool{}
		}
		c.owned[name][record.Partition] = true
		return true
	}
}

// settled waits until the records from now on are read by all of the members, and from all partitions.
func (c *crowd) settled(ctx context.Context) error {
	c.mutex.Lock()
	c.owned = map[string]map[int]bool{}
	c.mutex.Unlock()
	describe := func() string {
		c.mutex.Lock()
		defer c.mutex.Unlock()
		return fmt.Sprintf("%d members to read all partitions; read: %v", len(c.members), c.owned)
	}
	return waitFor(ctx, describe, func() (bool, error) {
		for _, each := range c.members {
			if err := each.failed(); err != nil {
				return false, err
			}
		}
		c.mutex.Lock()
		defer c.mutex.Unlock()
		partitions, readers := map[int]bool{}, 0
		for name, owned := range c.owned {
			if c.members[name] != nil {
				readers++
			}
			for partition := range owned {
				partitions[partition] = true
			}
		}
		return readers == len(c.members) && len(partitions) == groupPartitions, nil
	})
}

// group: a group of three loses a member and gains one while records are produced; each record is consumed.
func (s *Suite) group(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	topic := s.topic("group")
	if err := s.Client.Create(ctx, topic, groupPartitions, nil); err != nil {
		return err
	}
	c := &crowd{consumed: map[string]bool{}, owned: map[string]map[int]bool{}, members: map[string]*member{}}
	ending, produced := make(chan struct{}), make(chan int, 1)
	failures := make(chan error, 1)
	go func() {
		count, err := s.produceUntil(ctx, topic, ending)
		failures <- err
		produced <- count
	}()
	for _, name := range []string{"a", "b", "c"} {
		c.members[name] = s.join(ctx, topic, c.handler(name))
	}
	if err := c.settled(ctx); err != nil {
		return err
	}
	leaver := c.members["b"]
	delete(c.members, "b")
	if err := errors.Join(leaver.stop(), c.settled(ctx)); err != nil {
		return err
	}
	c.members["d"] = s.join(ctx, topic, c.handler("d"))
	if err := c.settled(ctx); err != nil {
		return err
	}
	close(ending)
	if err := <-failures; err != nil {
		return err
	}
	if err := c.consumesAll(ctx, <-produced); err != nil {
		return err
	}
	for _, each := range c.members {
		if err := each.stop(); err != nil {
			return err
		}
	}
	return nil
}

func (c *crowd) consumesAll(ctx context.Context, produced int) error {
	missing := func() (count int) {
		c.mutex.Lock()
		defer c.mutex.Unlock()
		for number := range produced {
			if !c.consumed[fmt.Sprint(number)] {
				count++
			}
		}
		return count
	}
	describe := func() string { return fmt.Sprintf("%d of %d records", missing(), produced) }
	return waitFor(ctx, describe, func() (bool, error) { return missing() == 0, nil })
}

// produceUntil sends numbers to all partitions in turn, and returns how many.
func (s *Suite) produceUntil(ctx context.Context, topic string, ending <-chan struct{}) (int, error) {
	sender, err := s.Client.Sender("none", false)
	if err != nil {
		return 0, err
	}
	defer sender.Close()
	for count := 0; ; count += groupPartitions {
		select {
		case <-ending:
			return count, nil
		case <-time.After(10 * time.Millisecond): // the pace
		}
		batch := []Record{}
		for partition := range groupPartitions {
			batch = append(batch, Record{Value: fmt.Append(nil, count+partition), Partition: partition})
		}
		if err := sender.Send(ctx, topic, batch); err != nil {
			return count, fmt.Errorf("producing failed: %w", err)
		}
	}
}

// administration: what the client's administration asks and changes.
func (s *Suite) administration(ctx context.Context) error {
	topic, err := s.numbered(ctx, "admin", time.Now().UnixMilli()-1_000_000)
	if err != nil {
		return err
	}
	seen := make(chan struct{})
	m := s.join(ctx, topic, func(record Record) bool {
		if record.Offset == 99 {
			close(seen)
		}
		return record.Offset < 40
	})
	select {
	case <-seen:
	case <-time.After(waitLimit):
		return errors.New("the records were not read")
	}
	if err := m.stop(); err != nil {
		return err
	}
	return s.Client.Administer(ctx, topic, topic+"-group")
}

// commitResume: a member commits in the middle and leaves; the next one goes on from there.
func (s *Suite) commitResume(ctx context.Context) error {
	topic, err := s.numbered(ctx, "commit-resume", time.Now().UnixMilli()-1_000_000)
	if err != nil {
		return err
	}
	const committed = 40
	for _, span := range [][2]int{{0, committed}, {committed, 100}} {
		var mutex sync.Mutex
		found := []int64{}
		read := func() int {
			mutex.Lock()
			defer mutex.Unlock()
			return len(found)
		}
		m := s.join(ctx, topic, func(record Record) bool {
			mutex.Lock()
			defer mutex.Unlock()
			found = append(found, record.Offset)
			return record.Offset < committed
		})
		describe := func() string { return fmt.Sprintf("records %v; read %d", span, read()) }
		if err := waitFor(ctx, describe, func() (bool, error) { return read() >= span[1]-span[0], m.failed() }); err != nil {
			return err
		}
		if err := m.stop(); err != nil {
			return err
		}
		for index := range span[1] - span[0] {
			if found[index] != int64(span[0]+index) {
				return fmt.Errorf("began with %d, not with %d", found[0], span[0])
			}
		}
	}
	return nil
}
