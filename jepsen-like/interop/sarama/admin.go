package main

import (
	"context"
	"errors"
	"slices"

	"github.com/IBM/sarama"
	"weir/interop/shared"
)

func (c client) Administer(_ context.Context, topic, group string) error {
	return errors.Join(c.cluster(), c.topic(topic), c.group(topic, group))
}

func (c client) cluster() error {
	brokers, controller, err := c.admin.DescribeCluster()
	if err != nil {
		return err
	}
	folders, err := c.admin.DescribeLogDirs([]int32{controller})
	return errors.Join(err, shared.Expect(len(brokers) == len(shared.Brokers()) && slices.ContainsFunc(brokers, func(broker *sarama.Broker) bool { return broker.ID() == controller }), "brokers", brokers),
		shared.Expect(len(folders[controller]) > 0, "folders", folders))
}

func (c client) topic(topic string) error {
	hour, day := "3600000", "86400000"
	retention := func() (string, error) {
		entries, err := c.admin.DescribeConfig(sarama.ConfigResource{Type: sarama.TopicResource, Name: topic, ConfigNames: []string{"retention.ms"}})
		if len(entries) != 1 {
			return "", errors.Join(err, shared.Expect(false, "settings", entries))
		}
		return entries[0].Value, err
	}
	set := sarama.IncrementalAlterConfigsEntry{Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &hour}
	ctx := context.Background()
	return errors.Join(
		c.admin.IncrementalAlterConfig(sarama.TopicResource, topic, map[string]sarama.IncrementalAlterConfigsEntry{"retention.ms": set}, false),
		shared.WaitForSetting(ctx, hour, retention),
		c.admin.AlterConfig(sarama.TopicResource, topic, map[string]*string{"retention.ms": &day}, false),
		shared.WaitForSetting(ctx, day, retention),
		c.admin.CreatePartitions(topic, 4, nil, false), c.admin.DeleteRecords(topic, map[int32]int64{0: 10}), c.isChanged(topic))
}

func (c client) isChanged(topic string) error {
	first, _, boundsErr := c.Bounds(context.Background(), topic)
	return errors.Join(boundsErr, shared.WaitForPartitions(context.Background(), c, topic, 4), shared.Expect(first == 10, "first offset", first))
}

func (c client) group(topic, group string) error {
	groups, listErr := c.admin.ListConsumerGroups()
	described, describeErr := c.admin.DescribeConsumerGroups([]string{group})
	offsets, offsetsErr := c.admin.ListConsumerGroupOffsets(group, map[string][]int32{topic: {0}})
	if err := errors.Join(listErr, describeErr, offsetsErr); err != nil {
		return err
	}
	block := offsets.GetBlock(topic, 0)
	deleteErr := errors.Join(c.admin.DeleteConsumerGroupOffset(group, topic, 0), c.admin.DeleteConsumerGroup(group))
	after, afterErr := c.admin.ListConsumerGroups()
	_, still := after[group]
	return errors.Join(deleteErr, afterErr, shared.Expect(groups[group] == "consumer", "groups", groups),
		shared.Expect(len(described) == 1 && described[0].State == "Empty", "group", described),
		shared.Expect(block != nil && block.Offset == 40, "commit", block), shared.Expect(!still, "groups", after))
}
