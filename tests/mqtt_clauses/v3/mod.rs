//! MQTT 3.1.1: the conformance statements of its appendix B that concern a server, one test each.

mod only;

use crate::both::{connect, delivery, malformed, publish, session, subscribe, topics, websocket, will};
use crate::tests::tests;

tests! {
    fn mqtt3_1_5_3_1_ill_formed_utf8_closes() { malformed::ill_formed_utf8(4) }
    fn mqtt3_1_5_3_2_null_character_closes() { malformed::null_character(4) }
    fn mqtt3_1_5_3_3_byte_order_mark_stays() { malformed::byte_order_mark_stays(4) }
    fn mqtt3_2_2_2_1_reserved_flags_of_the_server() { malformed::server_flags(4) }
    fn mqtt3_2_2_2_2_invalid_flags_close() { malformed::reserved_flags(4) }
    fn mqtt3_2_3_1_1_packet_identifier_is_not_zero() { malformed::packet_identifier_zero(4) }
    fn mqtt3_2_3_1_4_identifiers_of_the_server_are_unused() { delivery::identifiers_are_unused(4, 1) }
    fn mqtt3_2_3_1_5_qos_0_has_no_identifier() { publish::qos_0(4) }
    fn mqtt3_2_3_1_6_acknowledgements_have_the_identifier() { publish::identifiers_of_acknowledgements(4) }
    fn mqtt3_2_3_1_7_suback_and_unsuback_have_the_identifier() { subscribe::identifiers(4) }
    fn mqtt3_3_1_0_1_first_packet_is_connect() { connect::first_packet(4) }
    fn mqtt3_3_1_0_2_second_connect_closes() { connect::second_connect(4) }
    fn mqtt3_3_1_2_1_wrong_protocol_name_is_not_served() { only::wrong_protocol_name() }
    fn mqtt3_3_1_2_2_unknown_level_gets_return_code_1() { only::unknown_level() }
    fn mqtt3_3_1_2_3_reserved_connect_flag_closes() { malformed::reserved_connect_flag(4) }
    fn mqtt3_3_1_2_4_session_is_resumed() { session::resumed(4) }
    fn mqtt3_3_1_2_5_messages_wait_for_the_client() { session::messages_wait(4) }
    fn mqtt3_3_1_2_6_clean_session_discards() { session::clean_discards(4) }
    fn mqtt3_3_1_2_7_retained_messages_outlive_sessions() { session::retained_outlive_sessions(4) }
    fn mqtt3_3_1_2_8_will_is_published_when_closed() { will::published_when_closed(4) }
    fn mqtt3_3_1_2_9_will_flag_needs_topic_and_message() { will::fields_must_be_there(4) }
    fn mqtt3_3_1_2_10_will_is_removed_once_published() { will::removed_from_session(4) }
    fn mqtt3_3_1_2_11_no_will_fields_without_flag() { will::fields_must_not_be_there(4) }
    fn mqtt3_3_1_2_12_no_will_without_flag() { will::no_flag_no_will(4) }
    fn mqtt3_3_1_2_13_no_will_qos_without_flag() { will::qos_without_flag(4) }
    fn mqtt3_3_1_2_14_will_qos_is_0_1_or_2() { will::every_qos(4) }
    fn mqtt3_3_1_2_15_no_will_retain_without_flag() { will::retain_without_flag(4) }
    fn mqtt3_3_1_2_16_will_without_retain_is_not_retained() { will::not_retained(4) }
    fn mqtt3_3_1_2_17_will_with_retain_is_retained() { will::retained(4) }
    fn mqtt3_3_1_2_18_no_user_name_without_flag() { connect::credentials(4, "user name without its flag") }
    fn mqtt3_3_1_2_19_user_name_with_flag() { connect::credentials(4, "flag without a user name") }
    fn mqtt3_3_1_2_20_no_password_without_flag() { connect::credentials(4, "password without its flag") }
    fn mqtt3_3_1_2_21_password_with_flag() { connect::credentials(4, "flag without a password") }
    fn mqtt3_3_1_2_22_no_password_without_user_name() { only::password_without_user_name() }
    fn mqtt3_3_1_2_24_keep_alive_ends_the_connection() { connect::keep_alive(4) }
    fn mqtt3_3_1_3_1_order_of_the_payload() { connect::order_of_payload(4) }
    fn mqtt3_3_1_3_2_sessions_are_told_apart_by_identifier() { session::told_apart_by_identifier(4) }
    fn mqtt3_3_1_3_3_identifier_must_be_there() { connect::missing_identifier(4) }
    fn mqtt3_3_1_3_4_identifier_is_utf8() { malformed::connect_string(4, "client identifier") }
    fn mqtt3_3_1_3_5_identifiers_that_must_be_allowed() { connect::allowed_identifiers(4) }
    fn mqtt3_3_1_3_6_empty_identifiers_are_unique() { connect::empty_identifiers(4) }
    fn mqtt3_3_1_3_8_empty_identifier_without_clean_session() { only::empty_identifier_without_clean_session() }
    fn mqtt3_3_1_3_9_rejected_identifier_gets_return_code_2() { only::rejected_identifiers() }
    fn mqtt3_3_1_3_10_will_topic_is_utf8() { malformed::connect_string(4, "will topic") }
    fn mqtt3_3_1_3_11_user_name_is_utf8() { malformed::connect_string(4, "user name") }
    fn mqtt3_3_1_4_1_bad_connect_closes_without_connack() { malformed::connect_format(4) }
    fn mqtt3_3_1_4_2_existing_client_is_disconnected() { connect::taken_over(4) }
    fn mqtt3_3_1_4_3_clean_session_is_processed() { connect::clean_at_takeover(4) }
    fn mqtt3_3_1_4_4_connack_with_code_0() { connect::accepted(4) }
    fn mqtt3_3_1_4_5_nothing_is_read_after_a_refusal() { only::refused_is_not_read() }
    fn mqtt3_3_2_0_1_first_comes_connack() { connect::connack_first(4) }
    fn mqtt3_3_2_2_1_clean_session_has_session_present_0() { only::session_present_of_clean() }
    fn mqtt3_3_2_2_2_stored_session_has_session_present_1() { connect::session_present(4) }
    fn mqtt3_3_2_2_3_new_session_has_session_present_0() { session::created_when_missing(4) }
    fn mqtt3_3_2_2_4_refusal_has_session_present_0() { only::session_present_of_refusal() }
    fn mqtt3_3_2_2_5_refusal_closes() { only::refusal_closes() }
    fn mqtt3_3_2_2_6_no_code_no_connack() { only::no_code_no_connack() }
    fn mqtt3_3_3_1_1_dup_when_sent_again() { delivery::qos_1_sender(4) }
    fn mqtt3_3_3_1_2_no_dup_with_qos_0() { malformed::dup_with_qos_0(4) }
    fn mqtt3_3_3_1_3_dup_is_not_handed_on() { publish::dup_is_not_handed_on(4) }
    fn mqtt3_3_3_1_4_qos_3_closes() { malformed::qos_3(4) }
    fn mqtt3_3_3_1_5_retained_with_its_qos() { publish::retained_with_its_qos(4) }
    fn mqtt3_3_3_1_6_retained_messages_to_new_subscription() { publish::retained_to_new_subscription(4) }
    fn mqtt3_3_3_1_7_retained_qos_0_discards_the_old() { publish::retained_qos_0_replaces(4) }
    fn mqtt3_3_3_1_8_retain_1_for_a_new_subscription() { publish::retain_flag_when_new(4) }
    fn mqtt3_3_3_1_9_retain_0_for_an_established_one() { publish::retain_flag_when_established(4) }
    fn mqtt3_3_3_1_10_empty_retained_removes() { publish::empty_retained_removes(4) }
    fn mqtt3_3_3_1_11_empty_retained_is_not_kept() { publish::empty_retained_is_not_kept(4) }
    fn mqtt3_3_3_1_12_retain_0_keeps_and_removes_nothing() { publish::not_retained(4) }
    fn mqtt3_3_3_2_1_topic_comes_first_in_utf8() { malformed::no_topic(4) }
    fn mqtt3_3_3_2_2_no_wildcards_in_a_topic() { malformed::wildcards_in_topic(4) }
    fn mqtt3_3_3_2_3_topic_matches_the_filter() { publish::topic_matches_filter(4) }
    fn mqtt3_3_3_4_1_answer_by_qos() { publish::answer_by_qos(4) }
    fn mqtt3_3_3_5_1_highest_qos_of_overlapping_subscriptions() { publish::overlapping(4) }
    fn mqtt3_3_3_5_2_publish_that_is_not_allowed() { only::publish_not_allowed() }
    fn mqtt3_3_6_1_1_flags_of_pubrel() { malformed::pubrel_flags(4) }
    fn mqtt3_3_8_1_1_flags_of_subscribe() { malformed::subscribe_flags(4) }
    fn mqtt3_3_8_3_1_filters_are_utf8() { malformed::filter_is_utf8(4) }
    fn mqtt3_3_8_3_2_wildcards_are_supported() { subscribe::wildcards_work(4) }
    fn mqtt3_3_8_3_3_at_least_one_filter() { malformed::no_filters(4) }
    fn mqtt3_3_8_3_4_reserved_bits_of_subscribe() { malformed::reserved_options(4) }
    fn mqtt3_3_8_4_1_subscribe_is_answered() { subscribe::answered(4) }
    fn mqtt3_3_8_4_2_suback_has_the_identifier() { subscribe::answered(4) }
    fn mqtt3_3_8_4_3_subscription_is_replaced() { subscribe::replaced(4); subscribe::replaced_without_loss(4) }
    fn mqtt3_3_8_4_4_many_filters_one_suback() { subscribe::many_filters(4) }
    fn mqtt3_3_8_4_5_return_code_for_each_filter() { subscribe::codes_in_order(4) }
    fn mqtt3_3_8_4_6_lower_of_both_qos() { subscribe::granted_qos(4) }
    fn mqtt3_3_9_3_1_return_codes_in_order() { subscribe::codes_in_order(4) }
    fn mqtt3_3_9_3_2_no_reserved_return_codes() { only::suback_codes() }
    fn mqtt3_3_10_1_1_flags_of_unsubscribe() { malformed::unsubscribe_flags(4) }
    fn mqtt3_3_10_3_1_filters_are_utf8() { malformed::filter_is_utf8(4) }
    fn mqtt3_3_10_3_2_at_least_one_filter() { malformed::no_filters_to_unsubscribe(4) }
    fn mqtt3_3_10_4_1_filters_are_compared_by_character() { subscribe::compared_by_character(4) }
    fn mqtt3_3_10_4_2_no_more_messages() { subscribe::no_more_messages(4) }
    fn mqtt3_3_10_4_3_started_deliveries_are_completed() { subscribe::started_is_completed(4) }
    fn mqtt3_3_10_4_4_unsubscribe_is_answered() { subscribe::unsubscribe_answered(4) }
    fn mqtt3_3_10_4_5_unsubscribe_from_nothing_is_answered() { subscribe::nothing_to_unsubscribe(4) }
    fn mqtt3_3_10_4_6_many_filters_one_unsuback() { subscribe::unsubscribe_many(4) }
    fn mqtt3_3_12_4_1_pingreq_is_answered() { connect::pinged(4) }
    fn mqtt3_3_14_1_1_flags_of_disconnect() { malformed::disconnect_flags(4) }
    fn mqtt3_3_14_4_2_nothing_is_read_after_disconnect() { only::nothing_is_read_after_disconnect() }
    fn mqtt3_3_14_4_3_disconnect_discards_the_will() { will::discarded_by_disconnect(4) }
    fn mqtt3_4_1_0_1_session_is_stored() { session::kept_over_a_crash(4) }
    fn mqtt3_4_1_0_2_session_lasts_with_its_connection() { session::lasts_with_its_connection(4) }
    fn mqtt3_4_3_1_1_qos_0_sender() { publish::qos_0(4) }
    fn mqtt3_4_3_2_1_qos_1_sender() { delivery::qos_1_sender(4) }
    fn mqtt3_4_3_2_2_qos_1_receiver() { delivery::qos_1_receiver(4) }
    fn mqtt3_4_3_3_1_qos_2_sender() { delivery::identifiers_are_unused(4, 2); delivery::qos_2_sender(4) }
    fn mqtt3_4_3_3_2_qos_2_receiver() { delivery::qos_2_receiver(4); delivery::qos_2_receiver_over_reconnect(4) }
    fn mqtt3_4_4_0_1_unacknowledged_is_sent_again() { delivery::resent(4) }
    fn mqtt3_4_5_0_1_message_is_added_to_all_sessions() { delivery::added_to_all_sessions(4) }
    fn mqtt3_4_6_0_1_resent_in_order() { delivery::resent(4) }
    fn mqtt3_4_6_0_2_puback_in_order() { delivery::acknowledgements_in_order(4, 4) }
    fn mqtt3_4_6_0_3_pubrec_in_order() { delivery::acknowledgements_in_order(4, 5) }
    fn mqtt3_4_6_0_4_pubrel_in_order() { delivery::acknowledgements_in_order(4, 6) }
    fn mqtt3_4_6_0_5_every_topic_is_ordered() { delivery::in_order_on_shards(4) }
    fn mqtt3_4_6_0_6_messages_of_a_client_in_order() { delivery::in_order(4) }
    fn mqtt3_4_7_1_1_no_wildcards_in_a_topic() { malformed::wildcards_in_topic(4) }
    fn mqtt3_4_7_1_2_multi_level_wildcard() { topics::multi_level_wildcard(4) }
    fn mqtt3_4_7_1_3_single_level_wildcard() { topics::single_level_wildcard(4) }
    fn mqtt3_4_7_2_1_wildcards_do_not_match_dollar() { topics::dollar_topics(4) }
    fn mqtt3_4_7_3_1_at_least_one_character() { topics::at_least_one_character(4) }
    fn mqtt3_4_7_3_2_no_null_character() { malformed::null_character(4) }
    fn mqtt3_4_7_3_3_longest_topic() { topics::longest_topic(4) }
    fn mqtt3_4_7_3_4_no_normalisation() { topics::not_normalised(4); topics::leading_slash(4) }
    fn mqtt3_4_8_0_1_protocol_violation_closes() { malformed::violation_closes(4) }
    fn mqtt3_6_0_0_1_binary_frames_only() { websocket::binary_frames_only(4) }
    fn mqtt3_6_0_0_2_frames_are_no_packets() { websocket::frames_are_no_packets(4) }
    fn mqtt3_6_0_0_4_subprotocol_is_mqtt() { websocket::subprotocol(4) }
}
