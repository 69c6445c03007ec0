// The cases of segmentio/kafka-go.
package main

import (
	"context"
	"errors"
	"time"

	"github.com/segmentio/kafka-go"
	"weir/interop/shared"
)

var codecs = map[string]kafka.Compression{"gzip": kafka.Gzip, "snappy": kafka.Snappy, "lz4": kafka.Lz4, "zstd": kafka.Zstd}

type client struct{ *kafka.Client }

func record(message kafka.Message) shared.Record {
	found := shared.Record{
		Key: message.Key, Value: message.Value, Time: message.Time.UnixMilli(), Partition: message.Partition, Offset: message.Offset,
	}
	for _, header := range message.Headers {
		found.Headers = append(found.Headers, shared.Header{Key: header.Key, Value: header.Value})
	}
	return found
}

func (c client) Create(ctx context.Context, topic string, partitions int, config map[string]string) error {
	entries := []kafka.ConfigEntry{}
	for name, value := range config {
		entries = append(entries, kafka.ConfigEntry{ConfigName: name, ConfigValue: value})
	}
	wanted := kafka.TopicConfig{Topic: topic, NumPartitions: partitions, ReplicationFactor: 1, ConfigEntries: entries}
	response, err := c.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{wanted}})
	if err != nil {
		return err
	}
	if errors.Is(response.Errors[topic], kafka.TopicAlreadyExists) {
		return shared.ErrTopicExists
	}
	return response.Errors[topic]
}

func (c client) Delete(ctx context.Context, topic string) error {
	response, err := c.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{topic}})
	if err != nil {
		return err
	}
	return response.Errors[topic]
}

func (c client) Partitions(ctx context.Context, topic string) (int, error) {
	response, err := c.Metadata(ctx, &kafka.MetadataRequest{})
	if err != nil {
		return 0, err
	}
	for _, each := range response.Topics {
		if each.Name == topic {
			return len(each.Partitions), nil
		}
	}
	return 0, nil
}

type sender struct{ *kafka.Writer }

func (c client) Sender(codec string, _ bool) (shared.Sender, error) {
	toPartition := func(message kafka.Message, _ ...int) int { return message.Partition }
	return sender{&kafka.Writer{
		Addr: c.Addr, Balancer: kafka.BalancerFunc(toPartition), RequiredAcks: kafka.RequireAll, Compression: codecs[codec],
		BatchTimeout: 5 * time.Millisecond, BatchSize: 500,
	}}, nil
}

func (s sender) Send(ctx context.Context, topic string, records []shared.Record) error {
	messages := []kafka.Message{}
	for _, each := range records {
		message := kafka.Message{Topic: topic, Partition: each.Partition, Key: each.Key, Value: each.Value}
		for _, header := range each.Headers {
			message.Headers = append(message.Headers, kafka.Header{Key: header.Key, Value: header.Value})
		}
		if each.Time != 0 {
			message.Time = time.UnixMilli(each.Time)
		}
		messages = append(messages, message)
	}
	return s.WriteMessages(ctx, messages...)
}

type reader struct{ *kafka.Reader }

func (c client) Reader(_ context.Context, topic string, start int64) (shared.Reader, error) {
	made := reader{kafka.NewReader(kafka.ReaderConfig{
		Brokers: shared.Brokers(), Topic: topic, Partition: 0, MaxBytes: 10_000_000, MaxWait: 500 * time.Millisecond,
	})}
	return made, made.SeekTo(start)
}

func (r reader) Read(ctx context.Context, count int) (found []shared.Record, err error) {
	for len(found) < count {
		message, err := r.ReadMessage(ctx)
		if err != nil {
			return nil, err
		}
		found = append(found, record(message))
	}
	return found, nil
}

func (r reader) SeekTo(offset int64) error { return r.SetOffset(offset) }

func (c client) offsets(ctx context.Context, topic string, requests ...kafka.OffsetRequest) (kafka.PartitionOffsets, error) {
	response, err := c.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{topic: requests}})
	if err != nil {
		return kafka.PartitionOffsets{}, err
	}
	found := response.Topics[topic][0]
	return found, found.Error
}

func (c client) Bounds(ctx context.Context, topic string) (int64, int64, error) {
	found, err := c.offsets(ctx, topic, kafka.FirstOffsetOf(0), kafka.LastOffsetOf(0))
	return found.FirstOffset, found.LastOffset, err
}

func (c client) OffsetForTime(ctx context.Context, topic string, milliseconds int64) (int64, error) {
	found, err := c.offsets(ctx, topic, kafka.TimeOffsetOf(0, time.UnixMilli(milliseconds)))
	for offset := range found.Offsets {
		return offset, err
	}
	return -1, err
}

func (c client) Consume(ctx context.Context, topic, group string, handle func(shared.Record) bool) error {
	member := kafka.NewReader(kafka.ReaderConfig{
		Brokers: shared.Brokers(), GroupID: group, Topic: topic, StartOffset: kafka.FirstOffset, MaxWait: 200 * time.Millisecond,
		SessionTimeout: 6 * time.Second, HeartbeatInterval: 300 * time.Millisecond, JoinGroupBackoff: 200 * time.Millisecond,
	})
	accepted := []kafka.Message{}
	for ctx.Err() == nil {
		// A commit for every message would be slow; one when nothing came for a while is enough.
		short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		message, err := member.FetchMessage(short)
		cancel()
		if err == nil && handle(record(message)) {
			accepted = append(accepted, message)
		}
		if err != nil && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
			return errors.Join(err, member.Close())
		}
		if len(accepted) > 0 && (err != nil || len(accepted) > 100) {
			if err := commit(ctx, member, accepted); err != nil {
				return errors.Join(err, member.Close())
			}
			accepted = nil
		}
	}
	return member.Close()
}

// commit tolerates what a rebalance refuses: the records are read again by whoever has the partition now.
func commit(ctx context.Context, member *kafka.Reader, messages []kafka.Message) error {
	err := member.CommitMessages(context.WithoutCancel(ctx), messages...)
	for _, refused := range []error{kafka.RebalanceInProgress, kafka.IllegalGeneration, kafka.UnknownMemberId} {
		if errors.Is(err, refused) {
			return nil
		}
	}
	return err
}

func main() {
	key, value := []byte("key"), []byte("value")
	shared.Main(shared.Suite{
		Name: "kafka-go", Client: client{&kafka.Client{Addr: kafka.TCP(shared.Brokers()...), Timeout: 30 * time.Second}},
		// It reads what is empty as null.
		Headers:      []shared.Header{{Key: "a", Value: []byte("1")}, {Key: "b", Value: []byte("2")}, {Key: "a", Value: []byte("3")}},
		Nulls:        [][2][]byte{{nil, value}, {key, nil}, {nil, nil}, {key, value}},
		NoAppendTime: true,
		Notes: map[string]string{
			"headers":    "without an empty value and a null, which this client does not tell apart",
			"nulls":      "without an empty key and value, which this client reads as nulls",
			"timestamps": "without LogAppendTime: it shows the producer's timestamps whatever the batch's attributes say",
		},
	})
}
