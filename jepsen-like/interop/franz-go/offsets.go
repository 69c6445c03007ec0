package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// monitor is what a lag monitor such as KMinion knows of one group from the records of __consumer_offsets.
type monitor struct {
	group string
	// offset is the last commit of partition 0; nil before there is one, and after its tombstone.
	offset *kmsg.OffsetCommitValue
	// joined: there was a member; members is how many there are.
	joined  bool
	members int
	deleted bool
}

// read takes a record. A value that ends early, or has more than it should, is an error.
func (m *monitor) read(r *kgo.Record) error {
	switch version := int16(binary.BigEndian.Uint16(r.Key)); version {
	case 0, 1:
		key := kmsg.NewOffsetCommitKey()
		if err := key.ReadFrom(r.Key); err != nil || key.Group != m.group {
			return err
		}
		if r.Value == nil {
			m.offset = nil
			return nil
		}
		value := kmsg.NewOffsetCommitValue()
		m.offset = &value
		return value.ReadFrom(r.Value)
	case 2:
		key := kmsg.NewGroupMetadataKey()
		if err := key.ReadFrom(r.Key); err != nil || key.Group != m.group {
			return err
		}
		if r.Value == nil {
			m.deleted = true
			return nil
		}
		value := kmsg.NewGroupMetadataValue()
		err := value.ReadFrom(r.Value)
		m.members, m.joined = len(value.Members), m.joined || len(value.Members) > 0
		for _, member := range value.Members {
			if len(member.Assignment) == 0 {
				continue // its generation has begun, and nothing is assigned yet
			}
			assignment := kmsg.NewConsumerMemberAssignment()
			err = errors.Join(err, assignment.ReadFrom(member.Assignment))
		}
		return err
	default:
		return nil // what newer groups write
	}
}

// offsetsTopic reads what a group commits from __consumer_offsets, and computes its lag.
func (f franz) offsetsTopic(ctx context.Context, topic string) error {
	group := topic + "-group"
	if err := f.commitSome(ctx, topic, group); err != nil {
		return err
	}
	reader, err := client(kgo.ConsumeTopics("__consumer_offsets"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return err
	}
	defer reader.Close()
	m := monitor{group: group}
	until := func(what string, holds func() bool) error {
		for !holds() {
			short, cancel := context.WithTimeout(ctx, 30*time.Second)
			fetches := reader.PollFetches(short)
			cancel()
			if err := fetches.Err(); err != nil {
				return fmt.Errorf("waiting for %s; known: %+v: %w", what, m, err)
			}
			for _, each := range fetches.Records() {
				if err := m.read(each); err != nil {
					return fmt.Errorf("record %d of partition %d: %w", each.Offset, each.Partition, err)
				}
			}
		}
		return nil
	}
	if err := until("a commit, a member and its end", func() bool {
		return m.offset != nil && m.joined && m.members == 0
	}); err != nil {
		return err
	}
	_, end, err := f.Bounds(ctx, topic)
	if err != nil {
		return err
	}
	if lag := end - m.offset.Offset; lag != 6 || m.offset.Metadata != "monitored" {
		return fmt.Errorf("lag %d, commit %+v", lag, m.offset)
	}
	if _, err := f.admin.DeleteGroup(ctx, group); err != nil {
		return err
	}
	return until("tombstones of the commit and of the group", func() bool { return m.offset == nil && m.deleted })
}

// commitSome makes a topic of ten records, and a group that a member joins and leaves, and that has four of them committed.
func (f franz) commitSome(ctx context.Context, topic, group string) error {
	if err := f.Create(ctx, topic, 1, nil); err != nil {
		return err
	}
	member, err := client(
		kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DefaultProduceTopic(topic),
	)
	if err != nil {
		return err
	}
	defer member.Close()
	for number := range 10 {
		if err := member.ProduceSync(ctx, kgo.StringRecord(fmt.Sprint(number))).FirstErr(); err != nil {
			return err
		}
	}
	if err := member.PollFetches(ctx).Err(); err != nil {
		return err
	}
	_, generation := member.GroupMetadata()
	if generation < 1 {
		return fmt.Errorf("generation %d", generation)
	}
	member.Close() // leaves the group
	offsets := kadm.Offsets{}
	offsets.Add(kadm.Offset{Topic: topic, Partition: 0, At: 4, LeaderEpoch: -1, Metadata: "monitored"})
	return f.admin.CommitAllOffsets(ctx, group, offsets)
}
