//! The parts of GStreamer's interface that both elements implement alike, by a [`Filter`].
//!
//! [`Filter`]: crate::filter::Filter

/// Implements the traits of `GstVideoFilter` for an element with a field `filter`, and the methods
/// `make_plan(&self) -> eddy::Result<Plan>` and `scale(&self) -> Option<i32>`.
macro_rules! implement_element {
    ($element:ident, $properties:path, $metadata:expr) => {
        impl ObjectImpl for $element {
            fn properties() -> &'static [glib::ParamSpec] {
                static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new($properties);
                &PROPERTIES
            }

            fn set_property(&self, _: usize, value: &glib::Value, specification: &glib::ParamSpec) {
                let element = self.obj();
                self.filter.set_property(element.upcast_ref(), value, specification.name());
            }

            fn property(&self, _: usize, specification: &glib::ParamSpec) -> glib::Value {
                self.filter.property(specification)
            }

            fn constructed(&self) {
                self.parent_constructed();
                // Frames that come too late to be shown are dropped.
                self.obj().set_qos(true);
            }
        }

        impl GstObjectImpl for $element {}

        impl ElementImpl for $element {
            fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
                static METADATA: LazyLock<gst::subclass::ElementMetadata> =
                    LazyLock::new(|| $metadata);
                Some(&METADATA)
            }

            fn pad_templates() -> &'static [gst::PadTemplate] {
                static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
                    let caps = crate::caps::supported();
                    [("src", gst::PadDirection::Src), ("sink", gst::PadDirection::Sink)]
                        .into_iter()
                        .filter_map(|(name, direction)| {
                            let presence = gst::PadPresence::Always;
                            gst::PadTemplate::new(name, direction, presence, &caps).ok()
                        })
                        .collect()
                });
                &TEMPLATES
            }

            fn change_state(
                &self,
                transition: gst::StateChange,
            ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
                match transition {
                    gst::StateChange::ReadyToPaused => self.filter.set_stopped(false),
                    // The stream ends when the frame in hand does.
                    gst::StateChange::PausedToReady => self.filter.set_stopped(true),
                    _ => {}
                }
                self.parent_change_state(transition)
            }
        }

        impl BaseTransformImpl for $element {
            const MODE: BaseTransformMode = BaseTransformMode::NeverInPlace;
            const PASSTHROUGH_ON_SAME_CAPS: bool = false;
            const TRANSFORM_IP_ON_PASSTHROUGH: bool = false;

            fn start(&self) -> Result<(), gst::ErrorMessage> {
                let started = self.make_plan().and_then(|plan| self.filter.start(plan));
                started.map_err(|error| crate::errors::message(&error))
            }

            fn stop(&self) -> Result<(), gst::ErrorMessage> {
                self.filter.stop();
                Ok(())
            }

            fn transform_caps(
                &self,
                direction: gst::PadDirection,
                caps: &gst::Caps,
                filter: Option<&gst::Caps>,
            ) -> Option<gst::Caps> {
                let is_reverse = direction == gst::PadDirection::Src;
                let other = match self.scale() {
                    Some(1) => caps.clone(),
                    scale => crate::caps::scaled(caps, scale, is_reverse),
                };
                Some(match filter {
                    Some(filter) => {
                        filter.intersect_with_mode(&other, gst::CapsIntersectMode::First)
                    }
                    None => other,
                })
            }

            fn query(&self, direction: gst::PadDirection, query: &mut gst::QueryRef) -> bool {
                let is_answered = BaseTransformImplExt::parent_query(self, direction, query);
                if let (true, gst::QueryViewMut::Latency(latency)) =
                    (is_answered && direction == gst::PadDirection::Src, query.view_mut())
                {
                    self.filter.add_latency(latency);
                }
                is_answered
            }

            fn sink_event(&self, event: gst::Event) -> bool {
                match event.view() {
                    gst::EventView::FlushStart(_) => self.filter.set_stopped(true),
                    gst::EventView::FlushStop(_) => self.filter.flush(),
                    // What follows these comes after the frames before them.
                    gst::EventView::Caps(_) | gst::EventView::Segment(_) => self.drain(),
                    gst::EventView::Eos(_) => {
                        self.drain();
                        self.filter.post_figures(self.obj().upcast_ref());
                    }
                    _ => {}
                }
                self.parent_sink_event(event)
            }

            fn transform_meta<'a>(
                &self,
                outbuf: &mut gst::BufferRef,
                meta: gst::MetaRef<'a, gst::Meta>,
                inbuf: &'a gst::BufferRef,
            ) -> bool {
                // Metadata about sizes does not hold for frames of another size.
                let kept = match self.scale() {
                    Some(1) => &["video", "colorspace", "orientation", "size"][..],
                    _ => &["video", "colorspace", "orientation"],
                };
                meta.tags_contain_only(kept) || self.parent_transform_meta(outbuf, meta, inbuf)
            }

            fn generate_output(&self) -> Result<GenerateOutputSuccess, gst::FlowError> {
                let Some(buffer) = self.take_queued_buffer() else {
                    return Ok(GenerateOutputSuccess::NoOutput);
                };
                let element = self.obj();
                let processed = self.filter.process(element.upcast_ref(), buffer);
                Ok(match self.result(processed)? {
                    Some(result) => GenerateOutputSuccess::Buffer(result),
                    None => GenerateOutputSuccess::NoOutput,
                })
            }
        }

        impl VideoFilterImpl for $element {
            fn set_info(
                &self,
                incaps: &gst::Caps,
                input: &VideoInfo,
                outcaps: &gst::Caps,
                output: &VideoInfo,
            ) -> Result<(), gst::LoggableError> {
                let element = self.obj();
                let element = element.upcast_ref();
                self.filter.open(element, [incaps, outcaps], [input, output]).map_err(|error| {
                    let _ = self.filter.failed(element, &error);
                    gst::loggable_error!(CATEGORY, "{}", crate::errors::text(&error))
                })
            }
        }

        impl $element {
            /// A buffer of downstream's pool with the result, and the metadata of its frame.
            fn result(
                &self,
                processed: eddy::Result<Option<gst::Buffer>>,
            ) -> Result<Option<gst::Buffer>, gst::FlowError> {
                let element = self.obj();
                let failed = |error| self.filter.failed(element.upcast_ref(), &error);
                let Some(frame) = processed.map_err(failed)? else { return Ok(None) };
                let PrepareOutputBufferSuccess::Buffer(mut result) =
                    self.parent_prepare_output_buffer(InputBuffer::Readable(&frame))?
                else {
                    return Err(gst::FlowError::Error);
                };
                self.filter.write(result.make_mut()).map_err(failed)?;
                Ok(Some(result))
            }

            /// Gives the results that are missing.
            fn drain(&self) {
                let element = self.obj();
                while let Ok(Some(result)) = self.result(self.filter.drain(element.upcast_ref())) {
                    if element.src_pad().push(result).is_err() {
                        break;
                    }
                }
            }
        }
    };
}

pub(crate) use implement_element;
