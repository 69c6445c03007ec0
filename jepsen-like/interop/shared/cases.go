package shared

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"
)

func (s *Suite) create(ctx context.Context) error {
	topic := s.topic("create")
	if err := s.Client.Create(ctx, topic, 3, nil); err != nil {
		return err
	}
	partitions := func(expected int) error { return WaitForPartitions(ctx, s.Client, topic, expected) }
	if err := partitions(3); err != nil {
		return err
	}
	if err := s.Client.Create(ctx, topic, 3, nil); !errors.Is(err, ErrTopicExists) {
		return fmt.Errorf("the same topic a second time: %w", err)
	}
	if err := s.Client.Delete(ctx, topic); err != nil {
		return err
	}
	return partitions(0)
}

func (s *Suite) codec(ctx context.Context, codec string) error {
	topic, sent := s.topic(codec), []Record{}
	for number := range s.records {
		sent = append(sent, Record{Value: fmt.Appendf(nil, "%d of a codec, of a codec, of a codec", number)})
	}
	return s.sendAndCompare(ctx, topic, codec, false, sent)
}

func (s *Suite) sendAndCompare(ctx context.Context, topic, codec string, idempotent bool, sent []Record) error {
	if err := s.Client.Create(ctx, topic, 1, nil); err != nil {
		return err
	}
	if err := s.send(ctx, topic, codec, idempotent, sent); err != nil {
		return err
	}
	found, err := s.read(ctx, topic, len(sent))
	if err != nil {
		return err
	}
	for index := range sent {
		if !bytes.Equal(sent[index].Value, found[index].Value) {
			return fmt.Errorf("record %d is %q, not %q", index, found[index].Value, sent[index].Value)
		}
	}
	return nil
}

func (s *Suite) idempotence(ctx context.Context) error {
	if !s.Idempotence {
		return skip("this client has none")
	}
	topic, sent := s.topic("idempotence"), []Record{}
	for number := range s.records {
		sent = append(sent, Record{Value: fmt.Append(nil, number)})
	}
	if err := s.sendAndCompare(ctx, topic, "none", true, sent); err != nil {
		return err
	}
	first, end, err := s.Client.Bounds(ctx, topic)
	if err == nil && (first != 0 || end != int64(len(sent))) {
		err = fmt.Errorf("the partition has offsets %d to %d", first, end)
	}
	return err
}

func same(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }

func (s *Suite) headers(ctx context.Context) error {
	sent := []Record{{Value: []byte("some"), Headers: s.Headers}, {Value: []byte("none")}}
	found, err := s.sendAndRead(ctx, s.topic("headers"), nil, sent)
	if err != nil {
		return err
	}
	for index := range sent {
		equal := len(found[index].Headers) == len(sent[index].Headers)
		for position := 0; equal && position < len(sent[index].Headers); position++ {
			a, b := sent[index].Headers[position], found[index].Headers[position]
			equal = a.Key == b.Key && same(a.Value, b.Value)
		}
		if !equal {
			return fmt.Errorf("sent %q, read %q", sent[index].Headers, found[index].Headers)
		}
	}
	return nil
}

func (s *Suite) timestamps(ctx context.Context) error {
	start := time.Now().UnixMilli() - 5_000
	sent := []Record{{Value: []byte("x"), Time: start}, {Value: []byte("x"), Time: start + 2_000}, {Value: []byte("x"), Time: start + 1_000}}
	found, err := s.sendAndRead(ctx, s.topic("timestamps"), nil, sent)
	if err != nil {
		return err
	}
	for index := range sent {
		if found[index].Time != sent[index].Time {
			return fmt.Errorf("record %d: sent %d, read %d", index, sent[index].Time, found[index].Time)
		}
	}
	if s.NoAppendTime {
		return nil
	}
	config := map[string]string{"message.timestamp.type": "LogAppendTime"}
	found, err = s.sendAndRead(ctx, s.topic("timestamps-append"), config, sent[:1])
	if err == nil && found[0].Time < start+4_000 {
		err = errors.New("LogAppendTime, but the producer's timestamp is read")
	}
	return err
}

func (s *Suite) nulls(ctx context.Context) error {
	sent := []Record{}
	for _, pair := range s.Nulls {
		sent = append(sent, Record{Key: pair[0], Value: pair[1]})
	}
	found, err := s.sendAndRead(ctx, s.topic("nulls"), nil, sent)
	for index := 0; err == nil && index < len(sent); index++ {
		if !same(sent[index].Key, found[index].Key) || !same(sent[index].Value, found[index].Value) {
			err = fmt.Errorf("record %d: sent %#v, read %#v", index, sent[index], found[index])
		}
	}
	return err
}

func (s *Suite) seek(ctx context.Context) error {
	topic, err := s.numbered(ctx, "seek", time.Now().UnixMilli()-1_000_000)
	if err != nil {
		return err
	}
	reader, err := s.Client.Reader(ctx, topic, 10)
	if err != nil {
		return err
	}
	defer reader.Close()
	for index, offset := range []int64{10, 40, 0, 99} {
		if index > 0 {
			if err := reader.SeekTo(offset); err != nil {
				return err
			}
		}
		found, err := reader.Read(ctx, 1)
		if err != nil {
			return err
		}
		if found[0].Offset != offset || string(found[0].Value) != fmt.Sprint(offset) {
			return fmt.Errorf("offset %d is %q at %d", offset, found[0].Value, found[0].Offset)
		}
	}
	first, end, err := s.Client.Bounds(ctx, topic)
	if err == nil && (first != 0 || end != 100) {
		err = fmt.Errorf("the partition has offsets %d to %d", first, end)
	}
	return err
}

func (s *Suite) offsetsByTime(ctx context.Context) error {
	start := time.Now().UnixMilli() - 1_000_000
	topic, err := s.numbered(ctx, "offsets-by-time", start)
	if err != nil {
		return err
	}
	for after, expected := range map[int64]int64{49_500: 50, 50_000: 50, -1: 0, 100_000: -1} {
		found, err := s.Client.OffsetForTime(ctx, topic, start+after)
		if err != nil {
			return err
		}
		if found != expected {
			return fmt.Errorf("%d ms after the first: %d, not %d", after, found, expected)
		}
	}
	return nil
}
