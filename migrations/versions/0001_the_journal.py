"""The journal: messages, recipients, attempts, events, parked, leases, limits."""

import sqlalchemy as sa
from alembic import op


revision = '0001'
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('actions',
    sa.Column('id', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), nullable=False),
    sa.Column('at', sa.BigInteger(), nullable=False),
    sa.Column('who', sa.String(length=255), nullable=False),
    sa.Column('verb', sa.String(length=32), nullable=False),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.Column('detail', sa.Text(), nullable=False),
    sa.Column('count', sa.Integer(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_actions'))
    )
    op.create_table('attachments',
    sa.Column('message_id', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('n', sa.SmallInteger(), autoincrement=False, nullable=False),
    sa.Column('filename', sa.Text(), nullable=False),
    sa.Column('content_type', sa.String(length=127), nullable=False),
    sa.Column('content_id', sa.Text(), nullable=True),
    sa.Column('content', sa.LargeBinary(), nullable=False),
    sa.PrimaryKeyConstraint('message_id', 'n', name=op.f('pk_attachments'))
    )
    op.create_table('attempts',
    sa.Column('id', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), nullable=False),
    sa.Column('recipient_id', sa.BigInteger(), nullable=False),
    sa.Column('n', sa.Integer(), nullable=False),
    sa.Column('relay', sa.String(length=63), nullable=False),
    sa.Column('started_at', sa.BigInteger(), nullable=False),
    sa.Column('ended_at', sa.BigInteger(), nullable=False),
    sa.Column('kind', sa.String(length=12), nullable=False),
    sa.Column('phase', sa.String(length=12), nullable=False),
    sa.Column('code', sa.Integer(), nullable=False),
    sa.Column('enhanced', sa.String(length=12), nullable=False),
    sa.Column('reply', sa.Text(), nullable=False),
    sa.Column('error_class', sa.String(length=63), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_attempts'))
    )
    with op.batch_alter_table('attempts', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_attempts_recipient_id'), ['recipient_id'], unique=False)

    op.create_table('bounce_hints',
    sa.Column('address', sa.String(length=254), nullable=False),
    sa.Column('error_class', sa.String(length=63), nullable=False),
    sa.Column('hits', sa.Integer(), nullable=False),
    sa.Column('last_at', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('address', 'error_class', name=op.f('pk_bounce_hints'))
    )
    op.create_table('breakers',
    sa.Column('key', sa.String(length=400), nullable=False),
    sa.Column('state', sa.Text(), nullable=False),
    sa.Column('probe_id', sa.BigInteger(), nullable=False),
    sa.Column('probe_token', sa.Integer(), nullable=False),
    sa.Column('worth_until', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('key', name=op.f('pk_breakers'))
    )
    op.create_table('buckets',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('lane', sa.String(length=8), nullable=False),
    sa.Column('producer', sa.String(length=63), nullable=False),
    sa.Column('route', sa.Text(), nullable=False),
    sa.Column('domain', sa.String(length=900), nullable=False),
    sa.Column('open_at', sa.BigInteger(), nullable=False),
    sa.Column('waits_for', sa.String(length=300), nullable=True),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_buckets')),
    sa.UniqueConstraint('lane', 'producer', 'route', 'domain', name=op.f('uq_buckets_lane_producer_route_domain'))
    )
    op.create_table('connections',
    sa.Column('lease_id', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('relay', sa.String(length=63), nullable=False),
    sa.Column('have', sa.Integer(), nullable=False),
    sa.PrimaryKeyConstraint('lease_id', 'relay', name=op.f('pk_connections'))
    )
    op.create_table('digest_items',
    sa.Column('recipient_id', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), autoincrement=False, nullable=False),
    sa.Column('digest_id', sa.BigInteger(), nullable=False),
    sa.Column('item', sa.String(length=256), nullable=True),
    sa.PrimaryKeyConstraint('recipient_id', name=op.f('pk_digest_items'))
    )
    with op.batch_alter_table('digest_items', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_digest_items_digest_id'), ['digest_id'], unique=False)

    op.create_table('digests',
    sa.Column('id', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), autoincrement=False, nullable=False),
    sa.Column('slot', sa.String(length=64), nullable=False),
    sa.Column('name', sa.String(length=63), nullable=False),
    sa.Column('producer', sa.String(length=63), nullable=False),
    sa.Column('key', sa.String(length=256), nullable=False),
    sa.Column('throttled', sa.Boolean(), nullable=False),
    sa.Column('opened_at', sa.BigInteger(), nullable=False),
    sa.Column('due_at', sa.BigInteger(), nullable=False),
    sa.Column('items', sa.Integer(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_digests')),
    sa.UniqueConstraint('slot', name=op.f('uq_digests_slot'))
    )
    with op.batch_alter_table('digests', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_digests_due_at'), ['due_at'], unique=False)

    op.create_table('events',
    sa.Column('id', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), nullable=False),
    sa.Column('message_id', sa.BigInteger(), nullable=False),
    sa.Column('recipient_id', sa.BigInteger(), nullable=True),
    sa.Column('seq', sa.Integer(), nullable=False),
    sa.Column('kind', sa.String(length=16), nullable=False),
    sa.Column('at', sa.BigInteger(), nullable=False),
    sa.Column('detail', sa.Text(), nullable=True),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_events')),
    sqlite_autoincrement=True
    )
    with op.batch_alter_table('events', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_events_message_id'), ['message_id'], unique=False)

    op.create_table('outbox',
    sa.Column('producer', sa.String(length=63), nullable=False),
    sa.Column('reached', sa.BigInteger(), nullable=False),
    sa.Column('holder', sa.BigInteger(), nullable=False),
    sa.Column('until', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('producer', name=op.f('pk_outbox'))
    )
    op.create_table('published',
    sa.Column('second', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('reached', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('second', name=op.f('pk_published'))
    )
    op.create_table('facts',
    sa.Column('name', sa.String(length=63), nullable=False),
    sa.Column('value', sa.Text(), nullable=False),
    sa.PrimaryKeyConstraint('name', name=op.f('pk_facts'))
    )
    op.create_table('fires',
    sa.Column('schedule', sa.String(length=63), nullable=False),
    sa.Column('at', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('state', sa.String(length=8), nullable=False),
    sa.Column('tries', sa.Integer(), nullable=False),
    sa.Column('due_at', sa.BigInteger(), nullable=False),
    sa.Column('changed_at', sa.BigInteger(), nullable=False),
    sa.Column('since', sa.BigInteger(), nullable=True),
    sa.Column('messages', sa.Integer(), nullable=False),
    sa.Column('recipients', sa.Integer(), nullable=False),
    sa.Column('error', sa.Text(), nullable=True),
    sa.PrimaryKeyConstraint('schedule', 'at', name=op.f('pk_fires'))
    )
    op.create_table('leases',
    sa.Column('id', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), autoincrement=False, nullable=False),
    sa.Column('kind', sa.String(length=12), nullable=False),
    sa.Column('host', sa.String(length=255), nullable=False),
    sa.Column('boot', sa.String(length=64), nullable=False),
    sa.Column('pid', sa.Integer(), nullable=False),
    sa.Column('spool', sa.Text(), nullable=False),
    sa.Column('started_at', sa.BigInteger(), nullable=False),
    sa.Column('beat_at', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_leases'))
    )
    op.create_table('messages',
    sa.Column('id', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), autoincrement=False, nullable=False),
    sa.Column('producer', sa.String(length=63), nullable=False),
    sa.Column('identity', sa.String(length=400), nullable=False),
    sa.Column('body_hash', sa.String(length=64), nullable=False),
    sa.Column('stream', sa.String(length=63), nullable=False),
    sa.Column('sender', sa.String(length=254), nullable=False),
    sa.Column('template', sa.String(length=64), nullable=True),
    sa.Column('accepted_at', sa.BigInteger(), nullable=False),
    sa.Column('send_at', sa.BigInteger(), nullable=True),
    sa.Column('expires_at', sa.BigInteger(), nullable=True),
    sa.Column('recipients', sa.Integer(), nullable=False),
    sa.Column('sensitive', sa.Boolean(), nullable=False),
    sa.Column('idempotency_key', sa.String(length=256), nullable=True),
    sa.Column('own_id', sa.String(length=256), nullable=True),
    sa.Column('tags', sa.Text(), nullable=True),
    sa.Column('metadata', sa.Text(), nullable=True),
    sa.Column('traceparent', sa.String(length=64), nullable=True),
    sa.Column('throttle', sa.Text(), nullable=True),
    sa.Column('body', sa.Text(), nullable=False),
    sa.Column('unacked', sa.BigInteger(), nullable=True),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_messages')),
    sa.UniqueConstraint('producer', 'identity', name=op.f('uq_messages_producer_identity'))
    )
    with op.batch_alter_table('messages', schema=None) as batch_op:
        batch_op.create_index('ix_messages_own_id', ['own_id'], unique=False, postgresql_where=sa.text('own_id IS NOT NULL'), sqlite_where=sa.text('own_id IS NOT NULL'))
        batch_op.create_index('ix_messages_unacked', ['body_hash'], unique=False, postgresql_where=sa.text('unacked IS NOT NULL'), sqlite_where=sa.text('unacked IS NOT NULL'))

    op.create_table('orders',
    sa.Column('id', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), autoincrement=False, nullable=False),
    sa.Column('producer', sa.String(length=63), nullable=False),
    sa.Column('identity', sa.String(length=400), nullable=False),
    sa.Column('body_hash', sa.String(length=64), nullable=False),
    sa.Column('at', sa.BigInteger(), nullable=False),
    sa.Column('message_id', sa.BigInteger(), nullable=True),
    sa.Column('waiting', sa.Boolean(), nullable=False),
    sa.Column('said', sa.Text(), nullable=True),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_orders')),
    sa.UniqueConstraint('producer', 'identity', name=op.f('uq_orders_producer_identity'))
    )
    with op.batch_alter_table('orders', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_orders_at'), ['at'], unique=False)
        batch_op.create_index('ix_orders_waiting', ['message_id'], unique=False, postgresql_where=sa.text('waiting'), sqlite_where=sa.text('waiting'))

    op.create_table('parked',
    sa.Column('id', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), autoincrement=False, nullable=False),
    sa.Column('identity', sa.String(length=400), nullable=False),
    sa.Column('received_at', sa.BigInteger(), nullable=False),
    sa.Column('source', sa.String(length=16), nullable=False),
    sa.Column('producer', sa.String(length=63), nullable=True),
    sa.Column('kind', sa.String(length=12), nullable=False),
    sa.Column('faults', sa.Text(), nullable=False),
    sa.Column('body', sa.LargeBinary(), nullable=False),
    sa.Column('message_id', sa.BigInteger(), nullable=True),
    sa.Column('state', sa.String(length=12), nullable=False),
    sa.Column('resolved_at', sa.BigInteger(), nullable=True),
    sa.Column('resolved_by', sa.String(length=255), nullable=True),
    sa.Column('reason', sa.Text(), nullable=True),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_parked')),
    sa.UniqueConstraint('identity', name=op.f('uq_parked_identity'))
    )
    with op.batch_alter_table('parked', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_parked_state'), ['state'], unique=False)

    op.create_table('pauses',
    sa.Column('kind', sa.String(length=12), nullable=False),
    sa.Column('name', sa.String(length=255), nullable=False),
    sa.Column('since', sa.BigInteger(), nullable=False),
    sa.Column('who', sa.String(length=255), nullable=False),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.PrimaryKeyConstraint('kind', 'name', name=op.f('pk_pauses'))
    )
    op.create_table('permits',
    sa.Column('key', sa.String(length=400), nullable=False),
    sa.Column('state', sa.Text(), nullable=False),
    sa.PrimaryKeyConstraint('key', name=op.f('pk_permits'))
    )
    op.create_table('places',
    sa.Column('key', sa.String(length=400), nullable=False),
    sa.Column('recipient_id', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('token', sa.Integer(), nullable=False),
    sa.PrimaryKeyConstraint('key', 'recipient_id', name=op.f('pk_places'))
    )
    op.create_table('processes',
    sa.Column('id', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), autoincrement=False, nullable=False),
    sa.Column('kind', sa.String(length=12), nullable=False),
    sa.Column('host', sa.String(length=255), nullable=False),
    sa.Column('pid', sa.Integer(), nullable=False),
    sa.Column('started_at', sa.BigInteger(), nullable=False),
    sa.Column('seen_at', sa.BigInteger(), nullable=False),
    sa.Column('config', sa.String(length=16), nullable=False),
    sa.Column('config_at', sa.BigInteger(), nullable=False),
    sa.Column('answer', sa.Text(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_processes'))
    )
    op.create_table('recipients',
    sa.Column('id', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), autoincrement=False, nullable=False),
    sa.Column('message_id', sa.BigInteger(), nullable=False),
    sa.Column('n', sa.Integer(), nullable=False),
    sa.Column('kind', sa.String(length=4), nullable=False),
    sa.Column('email', sa.String(length=254), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('own', sa.Text(), nullable=True),
    sa.Column('bucket_id', sa.Integer(), nullable=False),
    sa.Column('state', sa.String(length=12), nullable=False),
    sa.Column('due_at', sa.BigInteger(), nullable=False),
    sa.Column('expires_at', sa.BigInteger(), nullable=True),
    sa.Column('token', sa.Integer(), nullable=False),
    sa.Column('lease_id', sa.BigInteger(), nullable=True),
    sa.Column('claims', sa.Integer(), nullable=False),
    sa.Column('attempts', sa.Integer(), nullable=False),
    sa.Column('suspect', sa.Boolean(), nullable=False),
    sa.Column('deaths', sa.Integer(), nullable=False),
    sa.Column('charged', sa.Boolean(), nullable=False),
    sa.Column('seq', sa.Integer(), nullable=False),
    sa.Column('error_class', sa.String(length=63), nullable=True),
    sa.Column('changed_at', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_recipients'))
    )
    with op.batch_alter_table('recipients', schema=None) as batch_op:
        batch_op.create_index('ix_recipients_due', ['bucket_id', 'state', 'due_at', 'id'], unique=False, postgresql_where=sa.text("state IN ('queued', 'deferred')"), sqlite_where=sa.text("state IN ('queued', 'deferred')"))
        batch_op.create_index('ix_recipients_expiry', ['expires_at'], unique=False, postgresql_where=sa.text("state IN ('queued', 'deferred') AND expires_at IS NOT NULL"), sqlite_where=sa.text("state IN ('queued', 'deferred') AND expires_at IS NOT NULL"))
        batch_op.create_index('ix_recipients_lease', ['lease_id'], unique=False, postgresql_where=sa.text("state = 'sending'"), sqlite_where=sa.text("state = 'sending'"))
        batch_op.create_index(batch_op.f('ix_recipients_message_id'), ['message_id'], unique=False)
        batch_op.create_index('ix_recipients_trouble', ['state', 'changed_at'], unique=False, postgresql_where=sa.text("state IN ('bounced', 'failed', 'uncertain', 'held', 'expired')"), sqlite_where=sa.text("state IN ('bounced', 'failed', 'uncertain', 'held', 'expired')"))

    op.create_table('renderings',
    sa.Column('recipient_id', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), autoincrement=False, nullable=False),
    sa.Column('content', sa.LargeBinary(), nullable=False),
    sa.PrimaryKeyConstraint('recipient_id', name=op.f('pk_renderings'))
    )
    op.create_table('schedules',
    sa.Column('name', sa.String(length=63), nullable=False),
    sa.Column('looked_at', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('name', name=op.f('pk_schedules'))
    )
    op.create_table('suppressions',
    sa.Column('id', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), nullable=False),
    sa.Column('address', sa.String(length=254), nullable=False),
    sa.Column('producer', sa.String(length=63), nullable=False),
    sa.Column('category', sa.String(length=63), nullable=False),
    sa.Column('reason', sa.String(length=200), nullable=False),
    sa.Column('source', sa.String(length=12), nullable=False),
    sa.Column('evidence', sa.Text(), nullable=False),
    sa.Column('created_at', sa.BigInteger(), nullable=False),
    sa.Column('expires_at', sa.BigInteger(), nullable=True),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_suppressions')),
    sa.UniqueConstraint('address', 'producer', 'category', name=op.f('uq_suppressions_address_producer_category'))
    )
    op.create_table('throttle_hits',
    sa.Column('id', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), nullable=False),
    sa.Column('key', sa.String(length=64), nullable=False),
    sa.Column('at', sa.BigInteger(), nullable=False),
    sa.Column('recipient_id', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_throttle_hits'))
    )
    with op.batch_alter_table('throttle_hits', schema=None) as batch_op:
        batch_op.create_index('ix_throttle_hits_key_at', ['key', 'at'], unique=False)



def downgrade() -> None:
    with op.batch_alter_table('throttle_hits', schema=None) as batch_op:
        batch_op.drop_index('ix_throttle_hits_key_at')

    op.drop_table('throttle_hits')
    op.drop_table('suppressions')
    op.drop_table('schedules')
    op.drop_table('renderings')
    with op.batch_alter_table('recipients', schema=None) as batch_op:
        batch_op.drop_index('ix_recipients_trouble', postgresql_where=sa.text("state IN ('bounced', 'failed', 'uncertain', 'held', 'expired')"), sqlite_where=sa.text("state IN ('bounced', 'failed', 'uncertain', 'held', 'expired')"))
        batch_op.drop_index(batch_op.f('ix_recipients_message_id'))
        batch_op.drop_index('ix_recipients_expiry', postgresql_where=sa.text("state IN ('queued', 'deferred') AND expires_at IS NOT NULL"), sqlite_where=sa.text("state IN ('queued', 'deferred') AND expires_at IS NOT NULL"))
        batch_op.drop_index('ix_recipients_lease', postgresql_where=sa.text("state = 'sending'"), sqlite_where=sa.text("state = 'sending'"))
        batch_op.drop_index('ix_recipients_due', postgresql_where=sa.text("state IN ('queued', 'deferred')"), sqlite_where=sa.text("state IN ('queued', 'deferred')"))

    op.drop_table('recipients')
    op.drop_table('processes')
    op.drop_table('places')
    op.drop_table('permits')
    op.drop_table('pauses')
    with op.batch_alter_table('parked', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_parked_state'))

    op.drop_table('parked')
    with op.batch_alter_table('orders', schema=None) as batch_op:
        batch_op.drop_index('ix_orders_waiting', postgresql_where=sa.text('waiting'), sqlite_where=sa.text('waiting'))
        batch_op.drop_index(batch_op.f('ix_orders_at'))

    op.drop_table('orders')
    with op.batch_alter_table('messages', schema=None) as batch_op:
        batch_op.drop_index('ix_messages_own_id', postgresql_where=sa.text('own_id IS NOT NULL'), sqlite_where=sa.text('own_id IS NOT NULL'))
        batch_op.drop_index('ix_messages_unacked', postgresql_where=sa.text('unacked IS NOT NULL'), sqlite_where=sa.text('unacked IS NOT NULL'))

    op.drop_table('messages')
    op.drop_table('leases')
    op.drop_table('fires')
    op.drop_table('facts')
    op.drop_table('published')
    op.drop_table('outbox')
    with op.batch_alter_table('events', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_events_message_id'))

    op.drop_table('events')
    with op.batch_alter_table('digests', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_digests_due_at'))

    op.drop_table('digests')
    with op.batch_alter_table('digest_items', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_digest_items_digest_id'))

    op.drop_table('digest_items')
    op.drop_table('connections')
    op.drop_table('buckets')
    op.drop_table('breakers')
    op.drop_table('bounce_hints')
    with op.batch_alter_table('attempts', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_attempts_recipient_id'))

    op.drop_table('attempts')
    op.drop_table('attachments')
    op.drop_table('actions')
