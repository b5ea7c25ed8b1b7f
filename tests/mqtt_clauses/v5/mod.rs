//! MQTT 5.0: the conformance statements of its appendix B that concern a server, one test each.

mod connect;
mod errors;
mod flow;
mod properties;
mod subscribe;
mod will;

use crate::both::{self, delivery, malformed, publish, session, topics, websocket};
use crate::tests::tests;
use crate::wire::id;

tests! {
    fn mqtt5_1_5_4_1_ill_formed_utf8_closes() { malformed::ill_formed_utf8(5) }
    fn mqtt5_1_5_4_2_null_character_closes() { malformed::null_character(5) }
    fn mqtt5_1_5_4_3_byte_order_mark_stays() { malformed::byte_order_mark_stays(5) }
    fn mqtt5_1_5_5_1_integers_in_their_shortest_form() { properties::shortest_integers() }
    fn mqtt5_1_5_7_1_pairs_are_utf8() { properties::pairs_are_utf8() }
    fn mqtt5_2_1_3_1_reserved_flags() { malformed::reserved_flags(5); malformed::server_flags(5) }
    fn mqtt5_2_2_1_2_qos_0_has_no_identifier() { publish::qos_0(5) }
    fn mqtt5_2_2_1_3_packet_identifier_is_not_zero() { malformed::packet_identifier_zero(5) }
    fn mqtt5_2_2_1_4_identifiers_of_the_server_are_unused() { delivery::identifiers_are_unused(5, 1) }
    fn mqtt5_2_2_1_5_acknowledgements_have_the_identifier() { publish::identifiers_of_acknowledgements(5) }
    fn mqtt5_2_2_1_6_suback_and_unsuback_have_the_identifier() { both::subscribe::identifiers(5) }
    fn mqtt5_2_2_2_1_empty_property_list_has_a_length() { properties::empty_list_has_a_length() }
    fn mqtt5_3_1_0_1_first_packet_is_connect() { both::connect::first_packet(5) }
    fn mqtt5_3_1_0_2_second_connect_closes() { both::connect::second_connect(5) }
    fn mqtt5_3_1_2_1_wrong_protocol_name_is_not_served() { connect::wrong_protocol_name() }
    fn mqtt5_3_1_2_2_other_versions_are_not_served() { connect::other_versions() }
    fn mqtt5_3_1_2_3_reserved_connect_flag_closes() { malformed::reserved_connect_flag(5) }
    fn mqtt5_3_1_2_4_clean_start_discards_the_session() { connect::clean_start_discards(); session::clean_discards(5) }
    fn mqtt5_3_1_2_5_session_is_resumed() { session::resumed(5) }
    fn mqtt5_3_1_2_6_session_is_created() { session::created_when_missing(5) }
    fn mqtt5_3_1_2_7_will_is_stored() { connect::will_is_stored() }
    fn mqtt5_3_1_2_8_will_is_published() { both::will::published_when_closed(5); will::published_after_its_delay() }
    fn mqtt5_3_1_2_9_will_flag_needs_the_fields() { both::will::fields_must_be_there(5) }
    fn mqtt5_3_1_2_10_will_is_removed() { will::removed_from_session() }
    fn mqtt5_3_1_2_11_no_will_qos_without_flag() { both::will::qos_without_flag(5) }
    fn mqtt5_3_1_2_12_will_qos_is_0_1_or_2() { both::will::every_qos(5) }
    fn mqtt5_3_1_2_13_no_will_retain_without_flag() { both::will::retain_without_flag(5) }
    fn mqtt5_3_1_2_14_will_without_retain_is_not_retained() { both::will::not_retained(5) }
    fn mqtt5_3_1_2_15_will_with_retain_is_retained() { both::will::retained(5) }
    fn mqtt5_3_1_2_16_no_user_name_without_flag() { both::connect::credentials(5, "user name without its flag") }
    fn mqtt5_3_1_2_17_user_name_with_flag() { both::connect::credentials(5, "flag without a user name") }
    fn mqtt5_3_1_2_18_no_password_without_flag() { both::connect::credentials(5, "password without its flag") }
    fn mqtt5_3_1_2_19_password_with_flag() { both::connect::credentials(5, "flag without a password"); connect::password_without_user_name() }
    fn mqtt5_3_1_2_22_keep_alive_ends_the_connection() { both::connect::keep_alive(5) }
    fn mqtt5_3_1_2_23_session_is_stored_until_it_expires() { connect::stored_if_it_may_expire_later(); session::kept_over_a_crash(5) }
    fn mqtt5_3_1_2_24_no_packet_above_the_maximum_size() { flow::no_packet_above_the_limit() }
    fn mqtt5_3_1_2_25_too_large_counts_as_sent() { flow::too_large_for_the_client() }
    fn mqtt5_3_1_2_26_no_alias_above_the_maximum() { flow::aliases_of_the_server() }
    fn mqtt5_3_1_2_27_no_alias_without_a_maximum() { flow::aliases_of_the_server() }
    fn mqtt5_3_1_2_28_no_response_information() { connect::response_information() }
    fn mqtt5_3_1_2_29_no_problem_information() { connect::no_problem_information() }
    fn mqtt5_3_1_3_1_order_of_the_payload() { both::connect::order_of_payload(5) }
    fn mqtt5_3_1_3_2_sessions_are_told_apart_by_identifier() { session::told_apart_by_identifier(5) }
    fn mqtt5_3_1_3_3_identifier_must_be_there() { both::connect::missing_identifier(5) }
    fn mqtt5_3_1_3_4_identifier_is_utf8() { malformed::connect_string(5, "client identifier") }
    fn mqtt5_3_1_3_5_identifiers_that_must_be_allowed() { both::connect::allowed_identifiers(5) }
    fn mqtt5_3_1_3_6_empty_identifiers_are_unique() { both::connect::empty_identifiers(5) }
    fn mqtt5_3_1_3_7_assigned_identifier_is_used() { connect::assigned_identifier_is_used() }
    fn mqtt5_3_1_3_8_rejected_identifier_closes() { connect::rejected_identifiers() }
    fn mqtt5_3_1_3_9_no_will_when_back_in_time() { will::not_sent_when_back_in_time() }
    fn mqtt5_3_1_3_10_user_properties_of_the_will_in_order() { will::properties_in_order() }
    fn mqtt5_3_1_3_11_will_topic_is_utf8() { malformed::connect_string(5, "will topic") }
    fn mqtt5_3_1_3_12_user_name_is_utf8() { malformed::connect_string(5, "user name") }
    fn mqtt5_3_1_4_1_bad_connect_closes() { malformed::connect_format(5); connect::format_of_properties() }
    fn mqtt5_3_1_4_2_failed_checks_close() { connect::failed_checks_close() }
    fn mqtt5_3_1_4_3_existing_client_is_disconnected() { both::connect::taken_over(5) }
    fn mqtt5_3_1_4_4_clean_start_is_processed() { both::connect::clean_at_takeover(5) }
    fn mqtt5_3_1_4_5_connack_with_code_0() { both::connect::accepted(5); connect::capabilities() }
    fn mqtt5_3_1_4_6_nothing_is_read_after_a_refusal() { connect::refused_is_not_read() }
    fn mqtt5_3_2_0_1_first_comes_connack() { both::connect::connack_first(5) }
    fn mqtt5_3_2_0_2_one_connack() { connect::one_connack() }
    fn mqtt5_3_2_2_1_flags_of_connack() { connect::flags_of_connack() }
    fn mqtt5_3_2_2_2_clean_start_has_session_present_0() { connect::session_present_of_clean() }
    fn mqtt5_3_2_2_3_session_present_is_true() { both::connect::session_present(5) }
    fn mqtt5_3_2_2_6_refusal_has_session_present_0() { connect::session_present_of_refusal() }
    fn mqtt5_3_2_2_7_refusal_closes() { connect::refusal_closes() }
    fn mqtt5_3_2_2_8_codes_of_connack() { connect::codes_of_connack() }
    fn mqtt5_3_2_2_9_no_maximum_qos_with_qos_2() { connect::maximum_qos() }
    fn mqtt5_3_2_2_10_every_requested_qos_is_accepted() { connect::every_requested_qos_is_accepted() }
    fn mqtt5_3_2_2_15_packet_above_the_maximum_size() { connect::packet_too_large() }
    fn mqtt5_3_2_2_16_empty_identifier_is_assigned_one() { connect::empty_identifier_is_assigned() }
    fn mqtt5_3_2_2_17_alias_above_the_maximum_closes() { flow::alias_above_the_maximum() }
    fn mqtt5_3_2_2_19_reason_string_of_connack_fits() { connect::connack_within_its_limit(id::REASON) }
    fn mqtt5_3_2_2_20_user_properties_of_connack_fit() { connect::connack_within_its_limit(id::USER) }
    fn mqtt5_3_2_2_22_keep_alive_of_the_client_is_used() { connect::keep_alive_of_the_client() }
    fn mqtt5_3_3_1_1_dup_when_sent_again() { delivery::resent(5) }
    fn mqtt5_3_3_1_2_no_dup_with_qos_0() { malformed::dup_with_qos_0(5) }
    fn mqtt5_3_3_1_3_dup_is_not_handed_on() { publish::dup_is_not_handed_on(5) }
    fn mqtt5_3_3_1_4_qos_3_closes() { malformed::qos_3(5) }
    fn mqtt5_3_3_1_5_retained_is_stored_and_replaced() { publish::retained_with_its_qos(5); publish::retained_is_replaced(5); publish::retained_qos_0_replaces(5); properties::replaced_with_its_properties() }
    fn mqtt5_3_3_1_6_empty_retained_removes() { publish::empty_retained_removes(5) }
    fn mqtt5_3_3_1_7_empty_retained_is_not_kept() { publish::empty_retained_is_not_kept(5) }
    fn mqtt5_3_3_1_8_retain_0_keeps_and_removes_nothing() { publish::not_retained(5) }
    fn mqtt5_3_3_1_9_retain_handling_0() { subscribe::retain_handling(0); publish::retained_to_new_subscription(5) }
    fn mqtt5_3_3_1_10_retain_handling_1() { subscribe::retain_handling(1) }
    fn mqtt5_3_3_1_11_retain_handling_2() { subscribe::retain_handling(2) }
    fn mqtt5_3_3_1_12_retain_as_published_0() { subscribe::retain_as_published(false); publish::retain_flag_when_established(5) }
    fn mqtt5_3_3_1_13_retain_as_published_1() { subscribe::retain_as_published(true); subscribe::retain_as_published_offline() }
    fn mqtt5_3_3_2_1_topic_comes_first_in_utf8() { malformed::no_topic(5) }
    fn mqtt5_3_3_2_2_no_wildcards_in_a_topic() { malformed::wildcards_in_topic(5) }
    fn mqtt5_3_3_2_3_topic_matches_the_filter() { publish::topic_matches_filter(5) }
    fn mqtt5_3_3_2_4_payload_format_is_unaltered() { properties::payload_format() }
    fn mqtt5_3_3_2_5_expired_messages_are_deleted() { properties::expired_messages_are_deleted() }
    fn mqtt5_3_3_2_6_remaining_interval_is_sent() { properties::remaining_interval() }
    fn mqtt5_3_3_2_7_aliases_are_not_carried_over() { flow::aliases_are_not_carried_over() }
    fn mqtt5_3_3_2_8_alias_0_closes() { flow::alias_0() }
    fn mqtt5_3_3_2_9_alias_above_the_maximum_closes() { flow::alias_above_the_maximum() }
    fn mqtt5_3_3_2_11_aliases_of_the_server_are_within_the_maximum() { flow::aliases_of_the_server() }
    fn mqtt5_3_3_2_12_every_alias_is_taken() { flow::every_alias_is_taken() }
    fn mqtt5_3_3_2_13_response_topic_is_utf8() { properties::text_is_utf8(id::RESPONSE_TOPIC) }
    fn mqtt5_3_3_2_14_response_topic_without_wildcards() { properties::response_topic_without_wildcards() }
    fn mqtt5_3_3_2_15_response_topic_is_unaltered() { properties::response_topic() }
    fn mqtt5_3_3_2_16_correlation_data_is_unaltered() { properties::correlation_data() }
    fn mqtt5_3_3_2_17_user_properties_are_unaltered() { properties::user_properties_unaltered() }
    fn mqtt5_3_3_2_18_user_properties_in_order() { properties::user_properties_in_order() }
    fn mqtt5_3_3_2_19_content_type_is_utf8() { properties::text_is_utf8(id::CONTENT_TYPE) }
    fn mqtt5_3_3_2_20_content_type_is_unaltered() { properties::content_type() }
    fn mqtt5_3_3_4_1_answer_by_qos() { publish::answer_by_qos(5) }
    fn mqtt5_3_3_4_2_highest_qos_of_overlapping_subscriptions() { publish::overlapping(5) }
    fn mqtt5_3_3_4_3_subscription_identifier_is_sent() { subscribe::identifier_is_sent() }
    fn mqtt5_3_3_4_4_identifiers_of_all_overlapping_subscriptions() { subscribe::identifiers_of_overlapping() }
    fn mqtt5_3_3_4_5_identifier_of_each_copy() { subscribe::identifier_of_each_copy() }
    fn mqtt5_3_3_4_6_no_subscription_identifier_from_a_client() { properties::no_subscription_identifier_from_a_client() }
    fn mqtt5_3_3_4_7_client_exceeds_the_receive_maximum() { flow::client_exceeds_the_receive_maximum() }
    fn mqtt5_3_3_4_9_server_keeps_the_receive_maximum() { flow::server_keeps_the_receive_maximum() }
    fn mqtt5_3_3_4_10_other_packets_are_not_held_up() { flow::others_are_not_held_up() }
    fn mqtt5_3_4_2_1_codes_of_puback() { errors::code_of(4) }
    fn mqtt5_3_4_2_2_reason_string_of_puback_fits() { errors::within_the_limit(4, id::REASON) }
    fn mqtt5_3_4_2_3_user_properties_of_puback_fit() { errors::within_the_limit(4, id::USER) }
    fn mqtt5_3_5_2_1_codes_of_pubrec() { errors::code_of(5) }
    fn mqtt5_3_5_2_2_reason_string_of_pubrec_fits() { errors::within_the_limit(5, id::REASON) }
    fn mqtt5_3_5_2_3_user_properties_of_pubrec_fit() { errors::within_the_limit(5, id::USER) }
    fn mqtt5_3_6_1_1_flags_of_pubrel() { malformed::pubrel_flags(5) }
    fn mqtt5_3_6_2_1_codes_of_pubrel() { errors::code_of(6) }
    fn mqtt5_3_6_2_2_reason_string_of_pubrel_fits() { errors::within_the_limit(6, id::REASON) }
    fn mqtt5_3_6_2_3_user_properties_of_pubrel_fit() { errors::within_the_limit(6, id::USER) }
    fn mqtt5_3_7_2_1_codes_of_pubcomp() { errors::code_of(7) }
    fn mqtt5_3_7_2_2_reason_string_of_pubcomp_fits() { errors::within_the_limit(7, id::REASON) }
    fn mqtt5_3_7_2_3_user_properties_of_pubcomp_fit() { errors::within_the_limit(7, id::USER) }
    fn mqtt5_3_8_1_1_flags_of_subscribe() { malformed::subscribe_flags(5) }
    fn mqtt5_3_8_3_1_filters_are_utf8() { malformed::filter_is_utf8(5) }
    fn mqtt5_3_8_3_2_at_least_one_filter() { malformed::no_filters(5) }
    fn mqtt5_3_8_3_3_no_local() { subscribe::no_local() }
    fn mqtt5_3_8_3_4_no_local_on_shared_closes() { subscribe::no_local_on_shared() }
    fn mqtt5_3_8_3_5_reserved_bits_of_subscribe() { malformed::reserved_options(5) }
    fn mqtt5_3_8_4_1_subscribe_is_answered() { both::subscribe::answered(5) }
    fn mqtt5_3_8_4_2_suback_has_the_identifier() { both::subscribe::answered(5) }
    fn mqtt5_3_8_4_3_subscription_is_replaced() { subscribe::replaced() }
    fn mqtt5_3_8_4_4_nothing_is_lost_when_replaced() { subscribe::replaced_without_loss() }
    fn mqtt5_3_8_4_5_many_filters_one_suback() { both::subscribe::many_filters(5) }
    fn mqtt5_3_8_4_6_reason_code_for_each_filter() { both::subscribe::codes_in_order(5) }
    fn mqtt5_3_8_4_7_granted_qos_or_failure() { both::subscribe::codes_in_order(5); both::subscribe::wildcards_work(5) }
    fn mqtt5_3_8_4_8_lower_of_both_qos() { both::subscribe::granted_qos(5) }
    fn mqtt5_3_9_2_1_reason_string_of_suback_fits() { errors::within_the_limit(9, id::REASON) }
    fn mqtt5_3_9_2_2_user_properties_of_suback_fit() { errors::within_the_limit(9, id::USER) }
    fn mqtt5_3_9_3_1_reason_codes_in_order() { both::subscribe::codes_in_order(5) }
    fn mqtt5_3_9_3_2_codes_of_suback() { errors::code_of(9) }
    fn mqtt5_3_10_1_1_flags_of_unsubscribe() { malformed::unsubscribe_flags(5) }
    fn mqtt5_3_10_3_1_filters_are_utf8() { malformed::filter_is_utf8(5) }
    fn mqtt5_3_10_3_2_at_least_one_filter() { malformed::no_filters_to_unsubscribe(5) }
    fn mqtt5_3_10_4_1_filters_are_compared_by_character() { both::subscribe::compared_by_character(5) }
    fn mqtt5_3_10_4_2_no_more_messages() { both::subscribe::no_more_messages(5) }
    fn mqtt5_3_10_4_3_started_deliveries_are_completed() { both::subscribe::started_is_completed(5) }
    fn mqtt5_3_10_4_4_unsubscribe_is_answered() { both::subscribe::unsubscribe_answered(5) }
    fn mqtt5_3_10_4_5_unsuback_has_the_identifier() { both::subscribe::unsubscribe_answered(5); both::subscribe::nothing_to_unsubscribe(5) }
    fn mqtt5_3_10_4_6_many_filters_one_unsuback() { both::subscribe::unsubscribe_many(5) }
    fn mqtt5_3_11_2_1_reason_string_of_unsuback_fits() { errors::within_the_limit(11, id::REASON) }
    fn mqtt5_3_11_2_2_user_properties_of_unsuback_fit() { errors::within_the_limit(11, id::USER) }
    fn mqtt5_3_11_3_1_reason_codes_in_order() { subscribe::unsuback_in_order() }
    fn mqtt5_3_11_3_2_codes_of_unsuback() { errors::code_of(11) }
    fn mqtt5_3_12_4_1_pingreq_is_answered() { both::connect::pinged(5) }
    fn mqtt5_3_14_0_1_no_disconnect_before_connack() { connect::no_disconnect_before_connack() }
    fn mqtt5_3_14_1_1_flags_of_disconnect() { errors::disconnect_flags() }
    fn mqtt5_3_14_2_1_codes_of_disconnect() { errors::codes_of_disconnect() }
    fn mqtt5_3_14_2_2_no_session_expiry_in_disconnect() { errors::no_expiry_in_disconnect() }
    fn mqtt5_3_14_2_3_reason_string_of_disconnect_fits() { errors::disconnect_within_the_limit(id::REASON) }
    fn mqtt5_3_14_2_4_user_properties_of_disconnect_fit() { errors::disconnect_within_the_limit(id::USER) }
    fn mqtt5_3_14_4_1_nothing_after_disconnect() { errors::nothing_after_disconnect() }
    fn mqtt5_3_14_4_2_disconnect_closes() { both::connect::taken_over(5); malformed::violation_closes(5) }
    fn mqtt5_3_14_4_3_disconnect_discards_the_will() { will::discarded_by_normal_disconnect_only() }
    fn mqtt5_3_15_1_1_flags_of_auth() { errors::auth_flags() }
    fn mqtt5_4_1_0_1_session_is_kept_while_connected() { connect::kept_while_connected(); session::lasts_with_its_connection(5) }
    fn mqtt5_4_1_0_2_session_is_discarded_when_expired() { connect::discarded_when_expired(); session::clean_leaves_nothing(5) }
    fn mqtt5_4_3_1_1_qos_0_sender() { publish::qos_0(5) }
    fn mqtt5_4_3_2_1_qos_1_identifier_is_unused() { delivery::identifiers_are_unused(5, 1) }
    fn mqtt5_4_3_2_2_qos_1_is_sent_without_dup() { delivery::qos_1_sender(5) }
    fn mqtt5_4_3_2_3_qos_1_is_unacknowledged_until_puback() { delivery::qos_1_sender(5) }
    fn mqtt5_4_3_2_4_qos_1_is_answered_with_puback() { publish::answer_by_qos(5) }
    fn mqtt5_4_3_2_5_qos_1_identifier_is_new_after_puback() { delivery::qos_1_receiver(5) }
    fn mqtt5_4_3_3_1_qos_2_identifier_is_unused() { delivery::identifiers_are_unused(5, 2) }
    fn mqtt5_4_3_3_2_qos_2_is_sent_without_dup() { delivery::qos_2_sender(5) }
    fn mqtt5_4_3_3_3_qos_2_is_unacknowledged_until_pubrec() { delivery::qos_2_sender(5) }
    fn mqtt5_4_3_3_4_pubrec_is_answered_with_pubrel() { delivery::qos_2_sender(5) }
    fn mqtt5_4_3_3_5_pubrel_is_unacknowledged_until_pubcomp() { delivery::qos_2_sender(5) }
    fn mqtt5_4_3_3_6_publish_is_not_sent_after_pubrel() { delivery::qos_2_sender(5) }
    fn mqtt5_4_3_3_7_no_expiry_once_sent() { properties::no_expiry_once_sent() }
    fn mqtt5_4_3_3_8_qos_2_is_answered_with_pubrec() { publish::answer_by_qos(5) }
    fn mqtt5_4_3_3_9_identifier_is_new_after_a_refusal() { errors::identifier_is_free_after_refusal() }
    fn mqtt5_4_3_3_10_no_duplicates_before_pubrel() { delivery::qos_2_receiver(5); delivery::qos_2_receiver_over_reconnect(5) }
    fn mqtt5_4_3_3_11_pubrel_is_answered_with_pubcomp() { publish::identifiers_of_acknowledgements(5) }
    fn mqtt5_4_3_3_12_identifier_is_new_after_pubcomp() { delivery::qos_2_receiver(5) }
    fn mqtt5_4_3_3_13_exchange_goes_on_after_expiry() { properties::exchange_goes_on_after_expiry() }
    fn mqtt5_4_4_0_1_unacknowledged_is_sent_again() { delivery::resent(5) }
    fn mqtt5_4_4_0_2_refused_is_not_sent_again() { errors::refused_by_the_client() }
    fn mqtt5_4_5_0_1_message_is_added_to_all_sessions() { delivery::added_to_all_sessions(5); session::messages_wait(5) }
    fn mqtt5_4_6_0_5_messages_of_a_client_in_order() { delivery::in_order(5) }
    fn mqtt5_4_6_0_6_every_topic_is_ordered() { delivery::in_order_on_shards(5) }
    fn mqtt5_4_7_0_1_no_wildcards_in_a_topic() { malformed::wildcards_in_topic(5) }
    fn mqtt5_4_7_1_1_multi_level_wildcard() { topics::multi_level_wildcard(5) }
    fn mqtt5_4_7_1_2_single_level_wildcard() { topics::single_level_wildcard(5) }
    fn mqtt5_4_7_2_1_wildcards_do_not_match_dollar() { topics::dollar_topics(5); errors::dollar_topics_are_refused() }
    fn mqtt5_4_7_3_1_at_least_one_character() { topics::at_least_one_character(5) }
    fn mqtt5_4_7_3_2_no_null_character() { malformed::null_character(5) }
    fn mqtt5_4_7_3_3_longest_topic() { topics::longest_topic(5) }
    fn mqtt5_4_7_3_4_no_normalisation() { topics::not_normalised(5); topics::leading_slash(5) }
    fn mqtt5_4_8_2_1_share_name_has_a_character() { subscribe::share_names() }
    fn mqtt5_4_8_2_2_share_name_without_wildcards() { subscribe::share_names_without_wildcards() }
    fn mqtt5_4_8_2_3_shared_with_its_own_qos() { subscribe::shared_with_its_own_qos() }
    fn mqtt5_4_8_2_4_shared_delivery_is_completed() { subscribe::shared_delivery_is_completed() }
    fn mqtt5_4_8_2_5_shared_delivery_ends_with_the_session() { subscribe::shared_delivery_ends_with_the_session() }
    fn mqtt5_4_8_2_6_shared_refusal_is_final() { subscribe::shared_refusal_is_final() }
    fn mqtt5_4_9_0_1_initial_quota() { flow::initial_quota() }
    fn mqtt5_4_9_0_2_nothing_more_at_quota_0() { flow::nothing_more_at_quota_0(); flow::refusal_frees_the_window() }
    fn mqtt5_4_9_0_3_others_go_on_at_quota_0() { flow::others_are_not_held_up() }
    fn mqtt5_4_12_0_1_unsupported_method_closes() { errors::unsupported_method() }
    fn mqtt5_4_12_0_4_authentication_is_refused() { connect::failed_checks_close() }
    fn mqtt5_4_12_0_6_no_auth_from_the_server() { errors::no_auth_from_the_server() }
    fn mqtt5_4_12_0_7_no_auth_from_the_client() { errors::no_auth_from_the_client() }
    fn mqtt5_4_12_1_2_failed_re_authentication_closes() { errors::failed_re_authentication() }
    fn mqtt5_4_13_1_1_violations_close() { errors::violations() }
    fn mqtt5_4_13_2_1_codes_of_0x80_close() { errors::codes_end_the_connection() }
    fn mqtt5_6_0_0_1_binary_frames_only() { websocket::binary_frames_only(5) }
    fn mqtt5_6_0_0_2_frames_are_no_packets() { websocket::frames_are_no_packets(5) }
    fn mqtt5_6_0_0_4_subprotocol_is_mqtt() { websocket::subprotocol(5) }
}
