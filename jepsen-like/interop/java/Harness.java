import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.function.BooleanSupplier;
import java.util.function.Supplier;

/** What every case needs: names, waits with a limit, and one line for each case. */
final class Harness {
    static final boolean SHORT = System.getenv("SHORT") != null && !System.getenv("SHORT").isEmpty();
    static final int RECORDS = SHORT ? 2_000 : 50_000;
    static final String RUN = UUID.randomUUID().toString().substring(0, 8);
    static final int CASE_SECONDS = 120;
    static final int WAIT_SECONDS = 60;
    /** What a failure says, in characters: the output of a tool can be long. */
    private static final int WHY_MAX = 2_000;
    private static boolean failed = false;

    private Harness() {}

    interface Case {
        void run() throws Exception;
    }

    static void check(boolean holds, String otherwise) {
        if (!holds) {
            throw new AssertionError(otherwise);
        }
    }

    static void waitFor(Supplier<String> what, BooleanSupplier condition) throws InterruptedException {
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(WAIT_SECONDS);
        while (!condition.getAsBoolean()) {
            check(System.nanoTime() < deadline, "waited " + WAIT_SECONDS + " s for " + what.get());
            Thread.sleep(10);
        }
    }

    static String topic(String name) {
        return "java-" + name + "-" + RUN;
    }

    static byte[] bytes(Object text) {
        return String.valueOf(text).getBytes(StandardCharsets.UTF_8);
    }

    static String text(byte[] bytes) {
        return bytes == null ? null : new String(bytes, StandardCharsets.UTF_8);
    }

    /** Runs the cases, prints a line for each, and ends the process with 1 if one failed. */
    static void main(Map<String, Case> cases) {
        ExecutorService runner = Executors.newCachedThreadPool(task -> {
            Thread thread = new Thread(task);
            thread.setDaemon(true);
            return thread;
        });
        cases.forEach((name, body) -> {
            Future<?> done = runner.submit(() -> {
                body.run();
                return null;
            });
            try {
                done.get(CASE_SECONDS, TimeUnit.SECONDS);
                System.out.println("ok " + name);
            } catch (TimeoutException late) {
                notOk(name, "not done within " + CASE_SECONDS + " s");
            } catch (Exception error) {
                notOk(name, String.valueOf(error.getCause() == null ? error : error.getCause()));
            }
        });
        System.out.flush();
        Runtime.getRuntime().halt(failed ? 1 : 0);
    }

    private static void notOk(String name, String why) {
        failed = true;
        String line = why.replace('\n', ' ');
        System.out.println("not ok " + name + ": " + line.substring(0, Math.min(line.length(), WHY_MAX)));
    }
}
